"""I1 for checkpoint's lanes: each effect has its row, each row its effect, and nothing is dispatched unheard.

Both directions count: an effect without its row is a lost effect, a row whose record was booked otherwise (or not yet
reached) is an effect without its advance.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from itertools import chain

from flux_common.contracts import catalogue
from flux_common.kernel.codes import Code
from flux_common.kernel.ids import decided_id
from flux_common.kernel.positions import Position, Received, TopicPartition
from flux_devkit.oracle.report import Violation
from flux_devkit.oracle.rows import DeadLetterRow, HashRow, HistoryRow
from flux_devkit.oracle.world import Book, Event, World, group, header, json_of, repeated, uuid_of

SLICED = catalogue.SLICED.ce_type
WITHOUT_ROW = frozenset({catalogue.STARTED.ce_type, catalogue.ALIVE.ce_type})
TOPIC_OF = {"progress": catalogue.PROGRESS.name, "runs": catalogue.RUNS.name}


def slices_have_their_hashes(world: World) -> Iterator[Violation]:
    """I1: each applied slice has one hash row at its position, with the SHA-256 of the bytes on the topic."""
    rows = group(world.tables.hashes, lambda row: (row.kafka_partition, row.kafka_offset))
    for record in _effects(world, catalogue.PROGRESS.name):
        if header(record, "ce_type") == SLICED:
            yield from _slice(record, rows.get((record.position.tp.kafka_partition, record.position.offset), []))


def _slice(record: Received, rows: list[HashRow]) -> Iterator[Violation]:
    value, place = record.value or b"", str(record.position)
    if not rows:
        yield Violation("I1", "an applied slice has no hash row", (place,))
    for row in rows:
        body = json_of(value) or {}
        named = (body.get("agency_id"), uuid_of(body.get("run_id")), body.get("partition"), body.get("seq"))
        if row.hash != sha256(value).digest():
            yield Violation("I1", "the hash row is not the digest of the record", (row.name, place))
        if named != (row.agency_id, row.run_id, row.number, row.seq):
            yield Violation("I1", "the hash row names another slice than the record", (row.name, place))


def hashes_have_their_slices(world: World) -> Iterator[Violation]:
    """I1: each hash row's position was booked as an effect, and no position has two."""
    for row in world.tables.hashes:
        place = TopicPartition(catalogue.PROGRESS.name, row.kafka_partition).at(row.kafka_offset)
        yield from _is_effect(world, place, row.name, (SLICED,))
    for place, rows in repeated(world.tables.hashes, lambda row: (row.kafka_partition, row.kafka_offset)):
        yield Violation("I1", f"one record made two hash rows: {place}", tuple(row.name for row in rows))


def reports_have_their_history(world: World) -> Iterator[Violation]:
    """I1: planned, finished and failed that were applied stand in the history under their position."""
    for record in _effects(world, catalogue.PROGRESS.name):
        type_ = header(record, "ce_type")
        if type_ != SLICED and type_ not in WITHOUT_ROW and not _lines(world, "progress", record, type_):
            yield Violation("I1", f"an applied {type_} is not in the history", (str(record.position),))


def admissions_have_their_rows(world: World) -> Iterator[Violation]:
    """I1: an admitted run is a run from that position; an admitted command was answered under that position."""
    runs = group(world.tables.runs, lambda row: (row.kafka_partition, row.kafka_offset))
    answers = {event.id for event in world.on(catalogue.COMPLETIONS)}
    for book in _books(world, catalogue.RUNS.name):
        for record in book.effects():
            at, type_ = record.position, header(record, "ce_type")
            if type_ == catalogue.RUN_ADMITTED.ce_type:
                if not runs.get((at.tp.kafka_partition, at.offset)):
                    yield Violation("I1", "an admitted run has no row", (str(at),))
                if not _lines(world, "runs", record, type_):
                    yield Violation("I1", "an admitted run is not in the history", (str(at),))
            elif str(decided_id("checkpoint", book.lane.topic_id, at, 0)) not in answers:
                yield Violation("I1", "an admitted command has no answer", (str(at),))


def runs_have_their_admissions(world: World) -> Iterator[Violation]:
    """I1: each run's position was booked as an effect, and holds that run's admission."""
    for row in world.tables.runs:
        place, name = TopicPartition(catalogue.RUNS.name, row.kafka_partition).at(row.kafka_offset), str(row.run_id)
        yield from _is_effect(world, place, name, (catalogue.RUN_ADMITTED.ce_type,))
        record = world.record(place)
        if record is not None and uuid_of((json_of(record.value) or {}).get("run_id")) != row.run_id:
            yield Violation("I1", "the run's position holds another run's admission", (name, str(place)))


def history_has_its_records(world: World) -> Iterator[Violation]:
    """I1: each line of the history that names a record is about an effect of that type; a slice's bytes hash to it."""
    hashes = {(row.kafka_partition, row.kafka_offset): row.hash for row in world.tables.hashes}
    for (source, partition, offset), rows in world.history_at.items():
        for row in rows:
            place = TopicPartition(TOPIC_OF[source], partition).at(offset)
            name = f"{row.run_id} event {row.event_no}"
            yield from _is_effect(world, place, name, (row.type,))
            if row.body is not None and hashes.get((partition, offset)) != sha256(row.body).digest():
                yield Violation("I1", "the slice record in the history is not the one that was applied", (name,))
        if len(rows) > 1:
            yield Violation(
                "I1", "two lines of the history name one record", (f"{TOPIC_OF[source]}/{partition}@{offset}",)
            )


def dispatches_went_out(world: World) -> Iterator[Violation]:
    """I1: each dispatch in the history is one work event, published or waiting; and no work event is unheard of."""
    lines = [row for row in world.tables.history if row.source == "dispatcher" and row.type == "item.dispatched"]
    told = group(lines, lambda row: (row.agency_id, row.run_id, row.kind, row.number, row.term))
    work = group(world.on(catalogue.WORK), _dispatch)
    for key in told.keys() | work.keys():
        events, rows = work.get(key, []), told.get(key, [])
        names = (" ".join(map(str, key)), *(event.name for event in events))
        if rows and not events and not world.expired(catalogue.WORK.name):
            yield Violation("I1", "a dispatch that never went out", names)
        elif len(rows) > 1:
            yield Violation("I1", "one term was dispatched twice", names)
        elif events and not rows:
            yield Violation("I1", "work of which the history knows nothing", names)


def _dispatch(event: Event) -> tuple[object, ...]:
    names = ("kind", "number", "term")
    return (event.get("agency_id"), uuid_of(event.get("run_id")), *(event.get(name) for name in names))


def dead_letters_are_told(world: World) -> Iterator[Violation]:
    """I1: each dead letter is booked, kept with the record's digest, and told to its agency; and the other way round."""
    kept = {row.position: row for row in world.tables.dead_letters}
    told = {event.of_record for event in world.on(catalogue.DEAD_LETTERS)}
    for book in world.books:
        for record, fate in book.judged():
            row = kept.get(record.position)
            if fate == "dead_letter" and row is None:
                yield Violation("I1", "a record was put aside without a dead letter", (str(record.position),))
            if row is not None and row.sha256 not in _digests(record, row):
                yield Violation("I1", "a dead letter's digest is not the record's", (str(record.position),))
    for place, row in kept.items():
        lane = world.book_of.get(place.tp)
        if lane is None or lane.fate(place.offset) != "dead_letter":
            yield Violation("I1", "a dead letter of a record that was not put aside", (str(place),))
        if row.agency_id in world.agencies and place not in told:
            yield Violation("I1", "a dead letter that its agency was not told of", (row.agency_id, str(place)))
    for event in world.on(catalogue.DEAD_LETTERS):
        found = kept.get(event.of_record) if event.of_record is not None else None
        if found is None or (found.sha256.hex(), found.code) != (event.get("sha256"), event.get("code")):
            yield Violation("I1", "an agency was told of a dead letter that is not kept so", (event.name,))


def _digests(record: Received, row: DeadLetterRow) -> set[bytes]:
    """Return the digest of what was put aside; of a batch that unfolds without bound no value was told, nor is it seen here."""
    of_value = sha256(record.value or b"").digest()
    return {of_value, sha256(b"").digest()} if row.code == Code.TOO_LARGE else {of_value}


def _books(world: World, topic: str) -> list[Book]:
    return [book for book in world.books if book.lane.topic == topic]


def _effects(world: World, topic: str) -> Iterator[Received]:
    return chain.from_iterable(book.effects() for book in _books(world, topic))


def _lines(world: World, source: str, record: Received, type_: str) -> list[HistoryRow]:
    at = record.position
    found = world.history_at.get((source, at.tp.kafka_partition, at.offset), [])
    return [row for row in found if row.type == type_]


def _is_effect(world: World, place: Position, name: str, types: tuple[str, ...]) -> Iterator[Violation]:
    """Judge a row by the record that it says it comes from."""
    book = world.book_of.get(place.tp)
    fate = book.fate(place.offset) if book is not None else None
    if book is not None and place.offset < book.lane.ledger_floor:
        return
    if fate != "effect":
        yield Violation("I1", f"a row of a record that was booked as {fate or 'nothing yet'}", (name, str(place)))
    record = world.record(place)
    if record is not None and header(record, "ce_type") not in types:
        yield Violation("I1", f"a row of {types[0]}, and the record is another event", (name, str(place)))


CHECKS = (
    slices_have_their_hashes,
    hashes_have_their_slices,
    reports_have_their_history,
    admissions_have_their_rows,
    runs_have_their_admissions,
    history_has_its_records,
    dispatches_went_out,
    dead_letters_are_told,
)
