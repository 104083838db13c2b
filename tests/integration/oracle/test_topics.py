"""Faults on topics: what was repeated, forged, exchanged or lost there is found, and what was aborted is not seen at all.

Records cannot be taken off a topic, nor changed on it: those faults are done to what was read. What can be written is
written, by a client that is not Flux's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from confluent_kafka import Producer

from flux_common.contracts import catalogue
from flux_common.contracts.catalogue import TopicSpec
from flux_common.kernel.positions import Received
from flux_devkit.oracle import World

if TYPE_CHECKING:
    from conftest import Rest, Wire

Change = Callable[[Received], Received | None]
AGENCY = "nasa"


def has(record: Received, ce_type: str) -> bool:
    """Tell whether a record is an event of that type."""
    return (record.header("ce_type") or b"").decode() == ce_type


def changed(world: World, topic: str, ce_type: str, change: Change) -> World:
    """Return the world with the first record of a topic and type taken out (None), or another in its place.

    The records meant are the agency's own, and those with a key: what strangers wrote proves nothing.
    """
    records = dict(world.records)
    found = [
        (tp, place, record)
        for tp in sorted(tp for tp in records if tp.topic == topic)
        for place, record in enumerate(records[tp])
        if has(record, ce_type) and record.key is not None
    ]
    ours = [one for one in found if AGENCY in topic or f'"{AGENCY}"'.encode() in (one[2].value or b"")]
    tp, place, record = (ours or found)[0]
    one = change(record)
    records[tp] = records[tp][:place] + ((one,) if one else ()) + records[tp][place + 1 :]
    return replace(world, records=records)


def gone(record: Received) -> None:
    """Lose a record."""
    del record


def flipped(record: Received) -> Received:
    """Change one byte of a record's value: a digit, where there is one."""
    value = bytearray(record.value or b"")
    place = next(i for i in reversed(range(len(value))) if chr(value[i]).isdigit())
    value[place] ^= 1
    return replace(record, value=bytes(value))


def of_another_agency(record: Received) -> Received:
    """Let a body name another agency."""
    body = json.loads(record.value or b"") | {"agency_id": "library-of-congress"}
    return replace(record, value=json.dumps(body).encode())


def of_more_objects(record: Received) -> Received:
    """Let a plan hold one object more."""
    body = json.loads(record.value or b"")
    return replace(record, value=json.dumps(body | {"objects": body["objects"] + 1}).encode())


def without_token(record: Received) -> Received:
    """Take the token away."""
    return replace(record, headers=tuple(one for one in record.headers if one[0] != "authorization"))


def under_another_key(record: Received) -> Received:
    """Exchange the key."""
    return replace(record, key=b"library-of-congress")


def under_another_id(record: Received) -> Received:
    """Exchange the event id."""
    return replace(record, headers=tuple((n, str(uuid4()).encode() if n == "ce_id" else v) for n, v in record.headers))


def topic(spec: TopicSpec) -> str:
    return spec.of(AGENCY)


READ: list[tuple[str, TopicSpec, str, Change, str]] = [
    ("a request is lost", catalogue.REQUESTS, "flux.run.requested.v1", gone, "I4"),
    ("a byte of a request is changed", catalogue.REQUESTS, "flux.run.requested.v1", flipped, "I4"),
    ("a request has no token", catalogue.REQUESTS, "flux.run.requested.v1", without_token, "I5"),
    ("a request is lost to the ledger", catalogue.REQUESTS, "flux.run.requested.v1", gone, "I8"),
    ("an acceptance is lost", catalogue.DECISIONS, "flux.run.accepted.v1", gone, "I4"),
    ("a refusal is lost", catalogue.DECISIONS, "flux.run.rejected.v1", gone, "I1"),
    ("a repetition is lost", catalogue.DECISIONS, "flux.run.repeated.v1", gone, "I1"),
    ("a byte of an acceptance is changed", catalogue.DECISIONS, "flux.run.accepted.v1", flipped, "I7"),
    ("an acceptance names another agency", catalogue.DECISIONS, "flux.run.accepted.v1", of_another_agency, "I5"),
    ("an admission is lost", catalogue.RUNS, "flux.run.admitted.v1", gone, "I4"),
    ("an admission names another agency", catalogue.RUNS, "flux.run.admitted.v1", of_another_agency, "I5"),
    ("an admitted command is lost", catalogue.RUNS, "flux.run.command-admitted.v1", gone, "I8"),
    ("work is lost", catalogue.WORK, "flux.work.dispatched.v1", gone, "I1"),
    ("work names another agency", catalogue.WORK, "flux.work.dispatched.v1", of_another_agency, "I5"),
    ("a slice is lost", catalogue.PROGRESS, "flux.progress.sliced.v1", gone, "I8"),
    ("a byte of a slice is changed", catalogue.PROGRESS, "flux.progress.sliced.v1", flipped, "I1"),
    ("a report names another agency", catalogue.PROGRESS, "flux.progress.planned.v1", of_another_agency, "I5"),
    ("a plan was reported otherwise", catalogue.PROGRESS, "flux.progress.planned.v1", of_more_objects, "I9"),
    ("a completion is lost", catalogue.COMPLETIONS, "flux.run.completed.v1", gone, "I6"),
    ("a completion has another id", catalogue.COMPLETIONS, "flux.run.completed.v1", under_another_id, "I6"),
    ("a byte of a completion is changed", catalogue.COMPLETIONS, "flux.run.completed.v1", flipped, "I7"),
    ("a completion names another agency", catalogue.COMPLETIONS, "flux.run.completed.v1", of_another_agency, "I5"),
    ("a dead letter is not told", catalogue.DEAD_LETTERS, "flux.record.dead-lettered.v1", gone, "I1"),
    ("a fact is lost", catalogue.AUDIT, "flux.audit.fact.v1", gone, "I8"),
    ("a byte of a fact is changed", catalogue.AUDIT, "flux.audit.fact.v1", flipped, "I7"),
    ("a fact has another key", catalogue.AUDIT, "flux.audit.fact.v1", under_another_key, "I5"),
    ("a receipt is lost", catalogue.RECEIPTS, "flux.audit.sealed.v1", gone, "I7"),
    ("a byte of a receipt is changed", catalogue.RECEIPTS, "flux.audit.sealed.v1", flipped, "I7"),
    ("a published head is changed", catalogue.TREE_HEADS, "flux.audit.tree-head-signed.v1", flipped, "I7"),
]


@pytest.mark.parametrize(("name", "spec", "ce_type", "change", "invariant"), READ, ids=[case[0] for case in READ])
def test_a_fault_on_a_topic_is_found(
    rest: Rest, name: str, spec: TopicSpec, ce_type: str, change: Change, invariant: str
) -> None:
    """A record that is missing, or is not what was written, breaks the invariant named."""
    found = rest.new(changed(rest.world, topic(spec), ce_type, change))

    assert invariant in found, (name, found)


REPEATED = [
    (catalogue.DECISIONS, "flux.run.accepted.v1"),
    (catalogue.COMPLETIONS, "flux.run.completed.v1"),
    (catalogue.RECEIPTS, "flux.audit.sealed.v1"),
    (catalogue.DEAD_LETTERS, "flux.record.dead-lettered.v1"),
    (catalogue.WORK, "flux.work.dispatched.v1"),
    (catalogue.RUNS, "flux.run.admitted.v1"),
    (catalogue.AUDIT, "flux.audit.fact.v1"),
]


def first(wire: Wire, spec: TopicSpec, ce_type: str) -> Any:
    """Return the first record of a type on a topic."""
    found = wire.read(topic(spec))
    ours = [one for one in found if AGENCY in topic(spec) or f'"{AGENCY}"'.encode() in one.value()]
    return next(one for one in ours if dict(one.headers() or [])["ce_type"].decode() == ce_type)


@pytest.mark.parametrize(("spec", "ce_type"), REPEATED, ids=[case[1] for case in REPEATED])
async def test_an_event_that_was_published_twice_is_found(
    rest: Rest, wire: Wire, spec: TopicSpec, ce_type: str
) -> None:
    """I6: a subscriber must see each event once; a repetition on the broker is one too many."""
    event = first(wire, spec, ce_type)
    wire.repeat(event)
    wire.last = await rest.gathered()
    found = rest.new(wire.last)

    assert any(dict(event.headers())["ce_id"].decode() in violation for violation in found["I6"])


def another_id(message: Any) -> list[tuple[str, bytes]]:
    """Return a message's headers with another event id."""
    return [(name, str(uuid4()).encode() if name == "ce_id" else value) for name, value in message.headers()]


FORGED = [
    ("a second acceptance of one request", catalogue.DECISIONS, "flux.run.accepted.v1", {}, "I4"),
    ("a second end of one attempt", catalogue.COMPLETIONS, "flux.run.completed.v1", {}, "I6"),
    ("an end of an attempt that was not", catalogue.COMPLETIONS, "flux.run.completed.v1", {"run_attempt": 2}, "I6"),
    ("an admission of nothing accepted", catalogue.RUNS, "flux.run.admitted.v1", {"request_id": "x"}, "I4"),
    ("an admission that nobody judged", catalogue.RUNS, "flux.run.admitted.v1", {}, "SETTLED"),
    ("work that nobody dispatched", catalogue.WORK, "flux.work.dispatched.v1", {"term": 9}, "I1"),
    ("another agency's event", catalogue.COMPLETIONS, "flux.run.completed.v1", {"agency_id": "national-archives"}, "I5"),
    ("a dead letter of nothing", catalogue.DEAD_LETTERS, "flux.record.dead-lettered.v1", {"code": "NOT_UTF8"}, "I1"),
    ("a receipt of another leaf", catalogue.RECEIPTS, "flux.audit.sealed.v1", {"leaf_index": 999}, "I7"),
    ("a receipt of another tree", catalogue.RECEIPTS, "flux.audit.sealed.v1", {"tree_size": 3}, "I7"),
    ("a fact that nobody sealed", catalogue.AUDIT, "flux.audit.fact.v1", {}, "SETTLED"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "spec", "ce_type", "said", "invariant"), FORGED, ids=[case[0] for case in FORGED])
async def test_a_forged_event_is_found(
    rest: Rest, wire: Wire, name: str, spec: TopicSpec, ce_type: str, said: dict[str, Any], invariant: str
) -> None:
    """An event of its own id, like one that is there, or saying something else."""
    event = first(wire, spec, ce_type)
    before = rest.new(wire.last or await rest.gathered())
    wire.repeat(event, value=json.dumps(json.loads(event.value()) | said).encode(), headers=another_id(event))
    wire.last = await rest.gathered()
    after = rest.new(wire.last)

    assert len(after.get(invariant, [])) > len(before.get(invariant, [])), (name, after)


async def test_a_request_that_nobody_answered_is_found(rest: Rest, wire: Wire) -> None:
    """SETTLED: a record on a requests topic that no lane has reached."""
    wire.write(topic(catalogue.REQUESTS), b"{}", {"ce_id": b"1", "ce_type": b"flux.run.requested.v1"})
    found = rest.new(await rest.gathered())

    assert any("ingest has not judged" in violation for violation in found["SETTLED"])


async def test_a_cursor_that_ran_ahead_is_found(rest: Rest, wire: Wire) -> None:
    """OUTBOX: the cursor names a number that the database has not given."""
    wire.write(catalogue.RELAY_CURSORS.name, b'{"cursor": 999}', {}, key=b"ingest/0")
    found = rest.new(await rest.gathered())

    assert any("cursor 999" in violation for violation in found["OUTBOX"])


async def test_what_was_aborted_is_not_seen(rest: Rest, wire: Wire) -> None:
    """A relay that died in the middle leaves records that no read_committed reader sees, and the oracle neither."""
    event = first(wire, catalogue.COMPLETIONS, "flux.run.completed.v1")
    before = rest.judge(await rest.gathered())
    settings = rest.installation.kafka()
    relay = Producer(settings.confluent_options() | {"transactional.id": settings.topic("aborted")})
    relay.init_transactions()
    relay.begin_transaction()
    relay.produce(event.topic(), event.value(), event.key(), partition=event.partition(), headers=event.headers())
    relay.flush(10)
    relay.abort_transaction()
    after = rest.judge(await rest.gathered())

    assert before.violations == after.violations
