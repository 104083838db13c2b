"""Faults in what is told of a flood: lost, changed, or answering what it does not answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from flux_client.explaining import Explainer
from flux_common.contracts import catalogue
from flux_common.kernel.positions import TopicPartition

if TYPE_CHECKING:
    from conftest import Rest

TYPES = {"decision": catalogue.INTAKE_FLOODED.ce_type.encode(), "fact": catalogue.AUDIT_FACT.ce_type.encode()}
Body = dict[str, Any]


def one_more(body: Body) -> Body:
    """Answer the offset before the first, too: that record has an answer of its own."""
    first, *rest = body["offsets"]
    return body | {"offsets": [{"first": first["first"] - 1, "last": first["last"]}, *rest]}


def one_less(body: Body) -> Body:
    """Leave the last offset without an answer."""
    *rest, last = body["offsets"]
    return body | {"offsets": [*rest, {"first": last["first"], "last": last["last"] - 1}]}


FAULTS: list[tuple[str, str, Callable[[Body], Body | None], str]] = [
    ("the decision is lost", "decision", lambda _: None, "I1"),
    ("the decision answers one more", "decision", one_more, "I1"),
    ("the decision answers one less", "decision", one_less, "I1"),
    ("the decision counts otherwise", "decision", lambda body: body | {"count": body["count"] + 1}, "I1"),
    ("the decision has another code", "decision", lambda body: body | {"code": "NOT_UTF8"}, "I1"),
    ("the decision names another agency", "decision", lambda body: body | {"agency_id": "nasa"}, "I5"),
    ("the decision is not the attested one", "decision", lambda body: body | {"message": "x"}, "I7"),
    ("the fact is lost", "fact", lambda _: None, "I7"),
]


@pytest.mark.parametrize(("name", "what", "change", "invariant"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_a_fault_in_a_flood_is_found(
    rest: Rest, name: str, what: str, change: Callable[[Body], Body | None], invariant: str
) -> None:
    """What is told of the first flood is changed; the invariant named is broken."""
    records = dict(rest.world.records)
    tp, place, body = next(
        (tp, place, body)
        for tp in sorted(records)
        for place, record in enumerate(records[tp])
        if record.header("ce_type") == TYPES[what]
        and (body := json.loads(record.value or b"")).get("type", "intake.flooded") == "intake.flooded"
    )
    changed = change(body)
    ours = [replace(records[tp][place], value=json.dumps(changed).encode())] if changed is not None else []
    records[tp] = (*records[tp][:place], *ours, *records[tp][place + 1 :])
    found = rest.new(replace(rest.world, records=records))

    assert invariant in found, (name, found)


async def test_an_offset_inside_a_flood_is_explained_by_its_decision(rest: Rest) -> None:
    """Whatever offset of the range is asked for, the one decision explains it; one before it has its own."""
    (flood, *_) = rest.world.tables.floods
    explainer = Explainer(flood.agency_id, rest.installation.kafka(), None, {})
    tp = TopicPartition(flood.topic, flood.kafka_partition)
    last, before = [await explainer.explain(tp.at(offset)) for offset in (flood.kafka_offset, flood.firsts[0] - 1)]

    assert (last["class"], last["decision"]["code"]) == ("effect", "INTAKE_FLOODED")
    assert before["decision"] is None or before["decision"]["code"] == "TOKEN_MISSING"
