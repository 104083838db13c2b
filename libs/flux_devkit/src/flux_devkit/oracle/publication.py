"""What relays owe (OUTBOX), and what the services owe to whoever asked (SETTLED).

Numbers at or below a shard's cursor are published, whatever the outbox still holds; that is always so. That nothing is
left to publish, to judge or to sign holds only once all work is done, which the caller knows.
"""

from __future__ import annotations

from collections.abc import Iterator

from flux_common.contracts import catalogue
from flux_common.contracts.catalogue import TopicSpec, topic_names
from flux_devkit.oracle.report import Violation
from flux_devkit.oracle.world import PUBLISHED, World, json_of, text_of

LANES: tuple[tuple[TopicSpec, str], ...] = (
    (catalogue.REQUESTS, "ingest"),
    (catalogue.RUNS, "checkpoint"),
    (catalogue.PROGRESS, "checkpoint"),
    (catalogue.AUDIT, "audit"),
)
RELAYED = (*PUBLISHED, catalogue.TREE_HEADS)


def cursors(world: World) -> dict[str, int]:
    """Return the last cursor of each shard, by `service/shard`."""
    records = world.of_topics([catalogue.RELAY_CURSORS.name])
    return {text_of(record.key) or "": int((json_of(record.value) or {}).get("cursor", 0)) for record in records}


def cursors_agree(world: World) -> Iterator[Violation]:
    """OUTBOX: last_cursor ≤ the cursor on the topic ≤ relay_counter; a row at or below it stands on its topic."""
    found = cursors(world)
    for lease in world.tables.leases:
        name = f"{lease.service}/{lease.shard}"
        if not lease.last_cursor <= found.get(name, 0) <= lease.relay_counter:
            what = f"cursor {found.get(name, 0)} is not within [{lease.last_cursor}, {lease.relay_counter}]"
            yield Violation("OUTBOX", what, (name,))
    published = {(event.topic, event.id) for spec in RELAYED for event in world.published(spec)}
    for row in world.tables.outbox:
        number = row.number or 0
        gone = 0 < number <= found.get(f"{row.service}/{row.shard}", 0)
        if gone and (row.topic, str(row.event_id)) not in published:
            yield Violation("OUTBOX", "the cursor passed an event that is not on its topic", (str(row.event_id),))


def outboxes_are_empty(world: World) -> Iterator[Violation]:
    """OUTBOX: nothing waits, nothing is parked, every number given was published."""
    for row in world.tables.outbox:
        what = "is parked" if row.parked else "was never published"
        yield Violation("OUTBOX", f"an event for {row.topic} {what}", (row.service, row.agency_id, str(row.event_id)))
    found = cursors(world)
    for lease in world.tables.leases:
        name = f"{lease.service}/{lease.shard}"
        if found.get(name, 0) != lease.relay_counter:
            what = f"{lease.relay_counter} numbers were given, {found.get(name, 0)} published"
            yield Violation("OUTBOX", what, (name,))


def everything_was_judged(world: World) -> Iterator[Violation]:
    """SETTLED: no lane has a record that was not judged."""
    for spec, service in LANES:
        if service not in world.services:
            continue
        for record in world.of_topics(topic_names(spec, list(world.agencies))):
            book = world.book_of.get(record.position.tp)
            if book is None or record.position.offset >= book.lane.next_offset:
                yield Violation("SETTLED", f"{service} has not judged a record", (str(record.position),))


def everything_is_signed(world: World) -> Iterator[Violation]:
    """SETTLED: each log's signed head is of its whole size, so that whoever waits for a receipt has it."""
    for head in world.tables.heads:
        if head.signed_size != head.size:
            what = f"{head.size} leaves, {head.signed_size} signed"
            yield Violation("SETTLED", what, (head.agency_id,))


CHECKS = (cursors_agree,)
WHEN_QUIESCENT = (outboxes_are_empty,)
WHEN_SETTLED = (everything_was_judged, everything_is_signed)
