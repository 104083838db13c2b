"""One installation as the oracle judges it: tables and topics of one moment, with the indexes that checks share.

Authority. The tables are one snapshot; the topics are what a `read_committed` reader sees, from the log's start. Between
the two nothing was written (gather.py makes sure), so that both may be held against each other in both directions.
An event that stands in the outbox and not yet on its topic was decided like any other: it is an `Event` without a
position.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, Final, TypeVar
from uuid import UUID

from flux_common.contracts.catalogue import (
    PROGRESS,
    RELAY_CURSORS,
    REQUESTS,
    TOPICS,
    TREE_HEADS,
    TopicSpec,
    topic_names,
)
from flux_common.kernel.positions import Position, Received, TopicPartition
from flux_devkit.oracle.rows import (
    ExceptionRow,
    HashRow,
    HistoryRow,
    ItemRow,
    LaneRow,
    LeafRow,
    LedgerRow,
    OutboxRow,
    RunRow,
    Tables,
)

SERVICES: Final = frozenset({"ingest", "checkpoint", "transform", "audit"})
# Written by relays alone, each row once. Reports of workers and requests may come twice; they are judged by lanes.
PUBLISHED: Final[tuple[TopicSpec, ...]] = tuple(
    spec for spec in TOPICS if spec not in (REQUESTS, PROGRESS, RELAY_CURSORS, TREE_HEADS)
)

Run = tuple[str, UUID]
Item = tuple[str, UUID, str, int]
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Log:
    """What the broker says of a Kafka partition: the topic's id, where the log starts, and its high watermark."""

    topic_id: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Event:
    """An event, published at `position` or still in the outbox; `body` is its value as JSON, None if it is none."""

    topic: str
    position: Position | None
    key: str | None
    id: str
    type: str
    value: bytes
    body: Any

    @property
    def name(self) -> str:
        """Return where it stands, for people."""
        return str(self.position) if self.position is not None else f"{self.topic} (outbox) {self.id}"

    def get(self, name: str) -> Any:
        """Return a member of the body; None if there is none."""
        return self.body.get(name) if isinstance(self.body, dict) else None

    @property
    def of_record(self) -> Position | None:
        """Return the position that the body names; None if it names none."""
        named = self.get("position")
        if not isinstance(named, dict):
            return None
        return TopicPartition(named["topic"], named["kafka_partition"]).at(named["offset"])

    @property
    def about(self) -> Run | None:
        """Return agency and run that the body names."""
        agency, run = self.get("agency_id"), uuid_of(self.get("run_id"))
        return (agency, run) if isinstance(agency, str) and run is not None else None


@dataclass(frozen=True)
class Book:
    """A lane with its accounts, in order of offsets, and what can be read of its log (None: there is no such topic)."""

    lane: LaneRow
    log: Log | None
    ledger: tuple[LedgerRow, ...]
    exceptions: tuple[ExceptionRow, ...]
    records: tuple[Received, ...]

    def fate(self, offset: int) -> str | None:
        """Return what an offset was booked as; None if the ledger does not cover it."""
        if self.row(offset) is None:
            return None
        found = bisect_right(self._firsts, offset) - 1
        excepted = found >= 0 and offset <= self.exceptions[found].last_offset
        return self.exceptions[found].fate if excepted else "effect"

    def row(self, offset: int) -> LedgerRow | None:
        """Return the row of the ledger that covers an offset."""
        place = bisect_right(self._starts, offset) - 1
        return self.ledger[place] if place >= 0 and offset < self.ledger[place].to_offset else None

    @cached_property
    def _starts(self) -> list[int]:
        return [row.from_offset for row in self.ledger]

    @cached_property
    def _firsts(self) -> list[int]:
        return [row.first_offset for row in self.exceptions]

    def judged(self) -> Iterator[tuple[Received, str | None]]:
        """Yield the records from the ledger's floor to `next_offset` that can still be read, with their fate."""
        for record in self.records:
            if self.lane.ledger_floor <= record.position.offset < self.lane.next_offset:
                yield record, self.fate(record.position.offset)

    def effects(self) -> Iterator[Received]:
        """Yield the readable records that were booked as effects."""
        return (record for record, fate in self.judged() if fate == "effect")


@dataclass(frozen=True)
class World:
    """Everything the checks look at. `services` says which took part: what the others would write is not asked for."""

    tables: Tables
    records: Mapping[TopicPartition, tuple[Received, ...]]
    logs: Mapping[TopicPartition, Log]
    agencies: tuple[str, ...]
    services: frozenset[str] = SERVICES
    audit_keys: tuple[Any, ...] = field(default=())

    @cached_property
    def books(self) -> tuple[Book, ...]:
        """Return every lane with its accounts."""
        ledger = group(self.tables.ledger, lambda row: (row.service, row.tp))
        exceptions = group(self.tables.exceptions, lambda row: (row.service, row.tp))
        return tuple(
            Book(
                lane,
                self.logs.get(lane.tp),
                tuple(sorted(ledger.get((lane.service, lane.tp), ()), key=lambda row: row.from_offset)),
                tuple(sorted(exceptions.get((lane.service, lane.tp), ()), key=lambda row: row.first_offset)),
                self.records.get(lane.tp, ()),
            )
            for lane in sorted(self.tables.lanes, key=lambda lane: (lane.service, lane.tp))
        )

    @cached_property
    def book_of(self) -> dict[TopicPartition, Book]:
        """Return the lanes by their Kafka partition; each topic has one service that reads it."""
        return {book.lane.tp: book for book in self.books}

    def record(self, position: Position) -> Received | None:
        """Return the record at a position, if it can be read."""
        return self._by_position.get(position)

    def readable(self, position: Position) -> bool:
        """Tell whether the log still holds this offset, so that a missing record means something."""
        log = self.logs.get(position.tp)
        return log is not None and log.start <= position.offset < log.end

    def expired(self, topic: str) -> bool:
        """Tell whether retention took part of a topic, so that a missing event proves nothing."""
        return any(log.start > 0 for tp, log in self.logs.items() if tp.topic == topic)

    @cached_property
    def _by_position(self) -> dict[Position, Received]:
        return {record.position: record for records in self.records.values() for record in records}

    def on(self, spec: TopicSpec) -> list[Event]:
        """Return the events of a topic (of all agencies), the published in order, then the waiting."""
        return self._by_topic.get(spec.name, [])

    def published(self, spec: TopicSpec) -> list[Event]:
        """Return the published events of a topic, in order."""
        return [event for event in self.on(spec) if event.position is not None]

    @cached_property
    def _by_topic(self) -> dict[str, list[Event]]:
        found: dict[str, list[Event]] = {}
        for spec in TOPICS:
            if spec is not REQUESTS:
                names = topic_names(spec, list(self.agencies))
                published = [_published(record) for record in self.of_topics(names)]
                found[spec.name] = published + self._waiting(names, published)
        return found

    def of_topics(self, names: Iterable[str]) -> list[Received]:
        """Return the records of topics, in order of their positions."""
        wanted = set(names)
        tps = sorted(tp for tp in self.records if tp.topic in wanted)
        return [record for tp in tps for record in self.records[tp]]

    def _waiting(self, names: Iterable[str], published: Sequence[Event]) -> list[Event]:
        out = {(event.topic, event.id) for event in published}
        topics = set(names)
        rows = [row for row in self.tables.outbox if row.topic in topics and (row.topic, str(row.event_id)) not in out]
        return [_waiting(row) for row in sorted(rows, key=lambda row: (row.service, row.id))]

    @cached_property
    def runs(self) -> dict[Run, RunRow]:
        """Return the runs by agency and id."""
        return {(row.agency_id, row.run_id): row for row in self.tables.runs}

    @cached_property
    def items(self) -> dict[Item, ItemRow]:
        """Return the items by agency, run, kind and number."""
        return {(row.agency_id, row.run_id, row.kind, row.number): row for row in self.tables.items}

    @cached_property
    def items_of(self) -> dict[Run, list[ItemRow]]:
        """Return the items of each run, in order of kind and number."""
        ordered = sorted(self.tables.items, key=lambda row: (row.kind, row.number))
        return group(ordered, lambda row: (row.agency_id, row.run_id))

    @cached_property
    def chains(self) -> dict[Item, list[HashRow]]:
        """Return the hash rows of each partition, in order of seq."""
        ordered = sorted(self.tables.hashes, key=lambda row: row.seq)
        return group(ordered, lambda row: (row.agency_id, row.run_id, "extract", row.number))

    @cached_property
    def history_at(self) -> dict[tuple[str, int, int], list[HistoryRow]]:
        """Return the history by (source, Kafka partition, offset), without the dispatcher's own."""
        placed = [row for row in self.tables.history if row.kafka_offset is not None]
        return group(placed, lambda row: (row.source, row.kafka_partition or 0, row.kafka_offset or 0))

    @cached_property
    def leaves_of(self) -> dict[str, list[LeafRow]]:
        """Return the leaves of each agency, in order."""
        return group(sorted(self.tables.leaves, key=lambda row: row.seq), lambda row: row.agency_id)

    def slice_value(self, row: HashRow) -> bytes | None:
        """Return a slice record's bytes: from its topic, else from the history; None if neither has them."""
        record = self.record(TopicPartition(PROGRESS.name, row.kafka_partition).at(row.kafka_offset))
        if record is not None:
            return record.value
        kept = self.history_at.get(("progress", row.kafka_partition, row.kafka_offset), [])
        return next((one.body for one in kept if one.body is not None), None)

    def slice_body(self, row: HashRow) -> dict[str, Any]:
        """Return a slice record; empty where it is gone, or is not what was applied (effects.py says so)."""
        value = self.slice_value(row)
        body = json_of(value) if value is not None and sha256(value).digest() == row.hash else None
        return body if isinstance(body, dict) else {}


def group(rows: Iterable[V], key: Any) -> dict[Any, list[V]]:
    """Return rows by key, each group in the order of `rows`."""
    found: dict[Any, list[V]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return dict(found)


def repeated(rows: Iterable[V], key: Any) -> Iterator[tuple[Any, list[V]]]:
    """Yield the keys that more than one row has, with these rows."""
    return ((name, found) for name, found in group(rows, key).items() if len(found) > 1)


def json_of(value: bytes | str | None) -> Any:
    """Return the JSON value of bytes; None where they are none."""
    try:
        return json.loads(value) if value is not None else None
    except (ValueError, RecursionError):
        return None


def uuid_of(text: object) -> UUID | None:
    """Return the UUID that a text is; None where it is none."""
    try:
        return UUID(text) if isinstance(text, str) else None
    except ValueError:
        return None


def text_of(value: bytes | None) -> str | None:
    """Return bytes as text, whatever they are."""
    return value.decode(errors="replace") if value is not None else None


def header(record: Received, name: str) -> str:
    """Return a header as text; empty if there is none, or more than one."""
    return text_of(record.header(name)) or ""


def _published(record: Received) -> Event:
    value = record.value or b""
    return Event(
        record.position.tp.topic,
        record.position,
        text_of(record.key),
        header(record, "ce_id"),
        header(record, "ce_type"),
        value,
        json_of(value),
    )


def _waiting(row: OutboxRow) -> Event:
    headers = dict(json.loads(row.headers))
    value = bytes(row.value)
    return Event(row.topic, None, row.key, str(row.event_id), headers.get("ce_type", ""), value, json_of(value))
