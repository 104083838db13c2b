"""Reading facts never raises: there is a fact, or a code, and always a log that the record goes to."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_audit.domain.entry import entry_bytes
from flux_audit.handlers.decoding import log_of, read_fact, unreadable_fact
from flux_common.contracts.facts import Actor
from flux_common.contracts.outgoing import Emitter
from flux_common.kernel.errors import InvalidMessage
from flux_common.kernel.ids import SYSTEM_AGENCY, sha256_hex
from flux_common.kernel.positions import Received, TopicPartition

LANE = TopicPartition("flux-internal.audit.v1", 1)
EVENT = UUID(int=9)
OUTGOING = Emitter("ingest").fact(
    "nasa", "run.accepted", at=datetime(2026, 1, 1, tzinfo=UTC), event_id=UUID(int=7), subject=b"body", code="RUN_STATE",
    actor=Actor(iss="https://idp", sub="u", role="operator", kid="k", jti_sha256="ab" * 32, binding="none"),
    position=TopicPartition("flux.nasa.run.requests.v1", 2).at(5), refs={"event_id": str(EVENT), "n": 3}, receipt=True,
)  # fmt: skip


def received(key: bytes | None = b"nasa", value: bytes | None = OUTGOING.value, **headers: bytes) -> Received:
    named = dict(OUTGOING.headers) | headers
    return Received(LANE.at(0), key, value, tuple(named.items()))


def changed(**members: Any) -> bytes:
    return json.dumps(json.loads(OUTGOING.value) | members).encode()


def test_a_fact_is_read_whole() -> None:
    """Every member reaches the entry, absent ones stay absent, and the receipt is for the event that it names."""
    read = read_fact(received())
    assert read.fact is not None
    entry = json.loads(entry_bytes(read.fact, 4))

    assert (read.agency_id, read.code, read.sha256) == ("nasa", None, sha256_hex(OUTGOING.value))
    assert (read.fact.fact_id, read.fact.event_id, read.fact.receipt) == (str(UUID(int=7)), str(EVENT), True)
    assert entry == {
        "v": 1,
        "agency_id": "nasa",
        "seq": 4,
        "ts": "2026-01-01T00:00:00.000Z",
        "type": "run.accepted",
        "outcome": "ok",
        "code": "RUN_STATE",
        "actor": json.loads(OUTGOING.value)["actor"],
        "src": {"service": "ingest", "topic": "flux.nasa.run.requests.v1", "kafka_partition": 2, "offset": 5},
        "subject_sha256": sha256_hex(b"body"),
        "refs": {"event_id": str(EVENT), "n": 3, "fact_id": str(UUID(int=7))},
    }


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (received(value=None), "VALUE_MISSING"),
        (received(value=b"{"), "SCHEMA_VIOLATION"),
        (received(value=changed(more=1)), "SCHEMA_VIOLATION"),
        (received(value=changed(agency_id="usgs")), "KEY_MISMATCH"),
        (received(value=changed(refs={"event_id": "event"})), "HEADER_INVALID"),
        (received(ce_id=b"7"), "HEADER_INVALID"),
        (received(ce_id=str(UUID(int=10**37)).upper().encode()), "HEADER_INVALID"),
        (received(ce_type=b"flux.run.failed.v1"), "EVENT_TYPE_UNKNOWN"),
        (replace(received(), headers=()), "HEADER_INVALID"),
    ],
)
def test_what_is_no_fact_has_a_code(record: Received, code: str) -> None:
    """It goes to the log that its key names, with its digest and the reason."""
    read = read_fact(record)

    assert (read.agency_id, read.fact, read.code) == ("nasa", None, code)
    assert read.sha256 == sha256_hex(record.value or b"")


@pytest.mark.parametrize(
    ("key", "agency"),
    [
        (b"nasa", "nasa"),
        (b"_system", SYSTEM_AGENCY),
        *(
            (key, SYSTEM_AGENCY)
            for key in (None, b"", b"NASA", b"nasa\n", b"n", b"a,b", b"_lane", b"\xff\xfe", "ä".encode())
        ),
    ],
)
def test_the_key_says_whose_log_it_is(key: bytes | None, agency: str) -> None:
    """Only an agency's id opens a log; everything else goes to the reserved one."""
    assert log_of(key) == agency


def test_a_refused_record_keeps_the_reason() -> None:
    """What the loop refuses is unreadable even though it could be read."""
    read = unreadable_fact(received(), InvalidMessage("TOO_LARGE", "too large"))

    assert (read.agency_id, read.fact, read.code) == ("nasa", None, "TOO_LARGE")


@given(key=st.binary(max_size=8) | st.none(), value=st.binary(max_size=64) | st.none(), name=st.binary(max_size=8))
def test_nothing_raises(key: bytes | None, value: bytes | None, name: bytes) -> None:
    """Whatever the bytes, there is a verdict."""
    assert read_fact(Received(LANE.at(1), key, value, (("ce_id", name), ("ce_type", name)))).fact is None
