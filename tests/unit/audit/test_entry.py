"""Entries are RFC 8785 bytes of the agreed members, or they are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from flux_audit.domain.entry import ENTRY_BYTES_MAX, EntryRefused, Fact, canonical_bytes, entry_bytes

FACT = Fact(
    fact_id="0b0e7c1e-7d9d-5d5d-9a55-3f0c0f4a0001",
    agency_id="nasa",
    ts="2026-11-24T10:00:00.125Z",
    type="run.accepted",
    outcome="ok",
    src={"service": "ingest", "topic": "flux.nasa.run.requests.v1", "kafka_partition": 2, "offset": 17},
    subject_sha256="ab" * 32,
    refs={"request_id": "nasa-1", "event_id": "9b0e7c1e-7d9d-5d5d-9a55-3f0c0f4a0002"},
)
NAMES = st.text("".join(map(chr, range(128))), max_size=8)
TEXTS = st.text("".join(map(chr, range(0x250))) + "\u2028\u2029\ud7ff\ue000\uffff\U0001f680", max_size=12)
VALUES = st.recursive(
    TEXTS | st.integers(-(2**53) + 1, 2**53 - 1),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)


def test_an_entry_has_the_agreed_members() -> None:
    """The members are those of the design, the leaf's index is `seq`, and the fact's own id is among the refs."""
    assert json.loads(entry_bytes(FACT, 41)) == {
        "v": 1,
        "agency_id": "nasa",
        "seq": 41,
        "ts": FACT.ts,
        "type": "run.accepted",
        "outcome": "ok",
        "src": FACT.src,
        "subject_sha256": "ab" * 32,
        "refs": {**FACT.refs, "fact_id": FACT.fact_id},
    }


def test_code_and_actor_stand_only_where_the_fact_has_them() -> None:
    """An absent code or actor is an absent member, never a null."""
    fact = replace(FACT, code="TOKEN_EXPIRED", actor={"iss": "https://issuer.example", "sub": "é", "role": "operator"})
    entry = json.loads(entry_bytes(fact, 0))

    assert (entry["code"], entry["actor"]["sub"]) == ("TOKEN_EXPIRED", "é")
    assert entry.keys() - json.loads(entry_bytes(FACT, 0)).keys() == {"code", "actor"}


def test_a_receipt_is_about_the_event_that_the_fact_names() -> None:
    """`event_id` is the attested event's where the fact names one, else the fact's own."""
    assert FACT.event_id == "9b0e7c1e-7d9d-5d5d-9a55-3f0c0f4a0002"
    assert replace(FACT, refs={}).event_id == FACT.fact_id
    assert replace(FACT, refs={"event_id": 7}).event_id == FACT.fact_id


@given(value=st.dictionaries(NAMES, VALUES, max_size=4))
def test_canonical_bytes_are_those_of_rfc_8785(value: dict[str, Any]) -> None:
    """What is written equals what a JCS library writes, for everything that an entry may hold."""
    try:
        written = canonical_bytes(value)
    except EntryRefused:
        return  # nested too deep; the rule has its own test

    assert written == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value",
    [1.0, True, None, 2**53, -(2**53), "\ud800", {"é": 1}, {1: 1}, (1,), b"", {"a": {"b": [None]}}],
    ids=repr,
)
def test_values_without_one_plain_form_are_refused(value: Any) -> None:
    """Floats, booleans, nulls, large integers, lone surrogates and names beyond ASCII never become bytes."""
    with pytest.raises(EntryRefused):
        entry_bytes(replace(FACT, refs={"value": value}), 0)


def test_nesting_is_limited() -> None:
    """An entry that nests without end is refused, not followed."""
    value: Any = {}
    for _ in range(5000):
        value = {"deeper": value}
    with pytest.raises(EntryRefused, match="deeper"):
        canonical_bytes(value)


def test_size_is_limited() -> None:
    """An entry has at most 64 KiB; one byte more is refused."""
    room = ENTRY_BYTES_MAX - len(entry_bytes(replace(FACT, refs={"text": ""}), 0))

    assert len(entry_bytes(replace(FACT, refs={"text": "x" * room}), 0)) == ENTRY_BYTES_MAX
    with pytest.raises(EntryRefused, match="larger"):
        entry_bytes(replace(FACT, refs={"text": "x" * (room + 1)}), 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"ts": "2026-11-24T10:00:00Z"},
        {"ts": "2026-11-24T10:00:00.125+00:00"},
        {"ts": "2026-11-24T10:00:00.125Z\n"},
        {"subject_sha256": "AB" * 32},
        {"subject_sha256": "ab" * 31},
        {"type": ""},
        {"type": "x\n"},
        {"outcome": "no\x00"},
        {"code": ""},
    ],
    ids=repr,
)
def test_members_out_of_their_form_are_refused(changes: dict[str, Any]) -> None:
    """Times, digests and words have one form each."""
    with pytest.raises(EntryRefused):
        entry_bytes(replace(FACT, **changes), 0)
