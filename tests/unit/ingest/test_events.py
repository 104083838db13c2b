"""What is told about decisions: every event keeps its contract, and its key, order and log are the right ones."""

from __future__ import annotations

import json
from typing import Any, TypeGuard

import pytest

from flux_common.contracts import catalogue
from flux_common.contracts.envelope import Outgoing
from flux_common.contracts.schema import validator_of, violations
from flux_common.kernel.codes import Code
from flux_common.kernel.ids import decided_id
from flux_ingest.domain.decide import decide
from flux_ingest.domain.model import DeadLettered, Decision, Flooded, Known, Redelivered, Rejected
from flux_ingest.handlers.events import Telling
from flux_ingest.handlers.flooding import of_the_flood
from flux_ingest.handlers.reading import Reading


def ce_type(event: Outgoing) -> str:
    """Return an event's type."""
    return dict(event.headers)["ce_type"].decode()


@pytest.fixture
def telling(desk: Any) -> Telling:
    """What NASA would be told."""
    return Telling(desk.trust.registry.agencies["nasa"], "topic-id", desk.now)


def judged(desk: Any, *records: Any) -> list[tuple[Reading, Decision]]:
    """Return records as read and decided, with nothing known before."""
    readings = [desk.reader().read(record) for record in records]
    return list(zip(readings, decide([one.finding for one in readings], Known()), strict=True))


def everything(desk: Any) -> list[tuple[Reading, Decision]]:
    """Return one record of each kind of decision."""
    run, command = desk.body(), desk.command()
    return judged(
        desk,
        desk.record(run, offset=0),
        desk.record(run, offset=1),
        desk.record(desk.body(labels={"a": "b"}), offset=2),
        desk.record(command, kind="command", offset=3),
        desk.record(command, kind="command", offset=4),
        desk.record(desk.command(reason="else"), kind="command", offset=5),
        desk.record(desk.body(source={}), offset=6),
        desk.record(run, "a.b.c", offset=7),
        desk.record(b"\xff", "a.b.c", kind="command", offset=8),
        desk.record(None, headers={"ce_type": b"x"}, offset=9),
    )


def test_every_event_keeps_its_published_schema(desk: Any, telling: Telling) -> None:
    """What leaves is judged by the schema that subscribers read."""
    told = [event for reading, decision in everything(desk) for event in telling.of(reading, decision)]
    told += telling.of_the_unproven([decision for _, decision in everything(desk)])
    told += of_the_flood("nasa", "topic-id", desk.now, [Flooded(one) for _, one in everything(desk) if refused(one)])
    broken = {
        ce_type(event): found
        for event in told
        if (found := violations(validator_of(catalogue.EVENTS[ce_type(event)]), json.loads(event.value)))
    }

    assert broken == {}
    assert {ce_type(event) for event in told} == {
        spec.ce_type
        for spec in (*catalogue.DECISIONS.events, *catalogue.RUNS.events, *catalogue.DEAD_LETTERS.events, catalogue.AUDIT_FACT)
    }  # fmt: skip


def refused(decision: Decision) -> TypeGuard[Rejected | DeadLettered]:
    """Tell whether a decision refuses its record."""
    return isinstance(decision, Rejected | DeadLettered)


def test_a_flood_is_one_decision_and_one_fact(desk: Any) -> None:
    """They name the first offset and all others, count the codes, and hold no id that a record named."""
    flooded = [Flooded(one) for _, one in everything(desk) if refused(one)]
    fact, told = of_the_flood("nasa", "topic-id", desk.now, flooded)
    body, said = json.loads(told.value), json.loads(fact.value)

    assert (told.key, told.event_id) == (None, str(decided_id("ingest", "topic-id", flooded[0].position, 0)))
    assert body["offsets"] == [{"first": 2, "last": 2}, {"first": 5, "last": 9}]
    assert (body["position"]["offset"], body["count"], sum(body["codes"].values())) == (2, 6, 6)
    assert (said["agency_id"], said["type"], said["outcome"]) == ("nasa", "intake.flooded", "refused")
    assert (said["refs"]["event_id"], said["refs"]["last_offset"]) == (told.event_id, 9)
    assert "r-1" not in told.value.decode() + fact.value.decode()


def test_a_flood_of_strangers_is_no_line_of_the_agencys_log(desk: Any) -> None:
    """Nobody in it is proven: its fact is the system's."""
    fact, _ = of_the_flood(
        "nasa", "topic-id", desk.now, [Flooded(one) for _, one in everything(desk)[7:] if refused(one)]
    )

    assert (fact.key, json.loads(fact.value)["agency_id"]) == ("_system", "_system")


def test_facts_come_first_and_belong_to_who_was_proven(desk: Any, telling: Telling) -> None:
    """Each proven decision has its fact before it, with the same digest; an unproven one leaves none in the agency's log."""
    for reading, decision in everything(desk):
        told = [ce_type(event) for event in telling.of(reading, decision)]
        unproven = isinstance(decision, DeadLettered) or (isinstance(decision, Rejected) and not decision.proven)

        assert told.count("flux.audit.fact.v1") == (0 if unproven else 1)
        assert unproven or told[0] == "flux.audit.fact.v1"


def test_keys_are_request_ids_and_run_ids(desk: Any, telling: Telling) -> None:
    """Decisions by request id, null where none is readable; what goes inward by run id; dead letters by position."""
    keys = {
        (decision_of(event), event.key)
        for reading, decision in everything(desk)
        for event in telling.of(reading, decision)
        if ce_type(event) != "flux.audit.fact.v1"
    }

    assert ("run.rejected", "r-1") in keys
    assert ("run.command-rejected", None) in keys
    assert ("record.dead-lettered", "flux.nasa.run.requests.v1/0@9") in keys
    assert {kind for kind, key in keys if key not in ("r-1", None)} == {
        "run.admitted", "run.command-admitted", "record.dead-lettered"
    }  # fmt: skip


def decision_of(event: Outgoing) -> str:
    """Return an event's type without its frame."""
    return ce_type(event).removeprefix("flux.").removesuffix(".v1")


def test_ids_follow_from_the_position(desk: Any, telling: Telling) -> None:
    """The decision is ordinal 0 of its record, what it admits ordinal 1; no two events share an id."""
    told = [event for reading, decision in everything(desk) for event in telling.of(reading, decision)]
    place = desk.record(None).position

    assert told[1].event_id == str(decided_id("ingest", "topic-id", place, 0))
    assert told[2].event_id == str(decided_id("ingest", "topic-id", place, 1))
    assert len({event.event_id for event in told}) == len(told)


def test_a_refusal_tells_code_and_places_and_no_value(desk: Any, telling: Telling) -> None:
    """The producer gets the code, its meaning and JSON pointers; nothing of what it sent but the id."""
    ((reading, decision),) = judged(desk, desk.record(desk.body(content_type="canary-value", source={"uri": "canary"})))
    body = json.loads(telling.of(reading, decision)[1].value)

    assert body["code"] == "SCHEMA_VIOLATION"
    assert body["message"] == Code.SCHEMA_VIOLATION.meaning
    assert {violation["pointer"] for violation in body["violations"]} == {"/content_type", "/source/uri"}
    assert "canary" not in json.dumps(body)


def test_a_redelivery_is_not_told(desk: Any, telling: Telling) -> None:
    """The decision that stands was told when it was made."""
    record = desk.record(desk.body())

    assert telling.of(desk.reader().read(record), Redelivered(record.position, None)) == []


def test_where_all_are_proven_the_system_log_hears_nothing(desk: Any, telling: Telling) -> None:
    """No empty facts."""
    assert telling.of_the_unproven([decision for _, decision in everything(desk)[:7]]) == []


def test_no_token_leaves(desk: Any, telling: Telling) -> None:
    """Neither a token nor its id is in any event."""
    token = desk.token(jti="canary-jti")
    told = [event for one in judged(desk, desk.record(desk.body(), token)) for event in telling.of(*one)]
    text = b" ".join(event.value + str(event.headers).encode() for event in told)

    assert token.encode() not in text
    assert b"canary-jti" not in text
