"""I8, I2 and the first half of I1: lanes and their ledgers against themselves and against the log.

Every offset from a lane's `ledger_floor` to its `next_offset` is in exactly one row of the ledger; a row's classes add up
to its exceptions; what can be read was judged, and what cannot be read is *control* or *lost*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from flux_devkit.oracle.report import Violation
from flux_devkit.oracle.rows import ExceptionRow, LedgerRow
from flux_devkit.oracle.world import Book, World, group

JUDGED = frozenset({"effect", "duplicate", "fenced", "dead_letter", "lost"})
WITHOUT_RECORD = frozenset({"control", "lost"})


def lanes_stand_in_their_log(world: World) -> Iterator[Violation]:
    """I1: no lane is ahead of its log, and each still reads the topic that it was made for."""
    for book in world.books:
        lane, log = book.lane, book.log
        if log is None:
            yield Violation("I1", "a lane of a topic that is not there", (str(lane.tp),))
            continue
        if lane.next_offset > log.end:
            yield Violation("I1", f"next_offset {lane.next_offset} is beyond the log's end {log.end}", (str(lane.tp),))
        if lane.topic_id != log.topic_id:
            yield Violation("I1", "the lane's topic id is not the topic's", (str(lane.tp), lane.topic_id))


def owners_are_fenced(world: World) -> Iterator[Violation]:
    """I2: every lane was taken, is read by one service, and no two Advances cover one offset."""
    for book in world.books:
        if book.lane.owner_epoch < 1:
            yield Violation("I2", "a lane that was never taken", (str(book.lane.tp),))
        for one, other in pairwise(book.ledger):
            if other.from_offset < one.to_offset:
                what = f"[{one.from_offset}, {one.to_offset}) and [{other.from_offset}, {other.to_offset})"
                yield Violation("I2", f"two Advances cover one offset: {what}", (str(book.lane.tp),))
    for tp, readers in group(world.tables.lanes, lambda lane: lane.tp).items():
        if len(readers) > 1:
            yield Violation("I2", "two services own one lane", (str(tp), *sorted(lane.service for lane in readers)))


def ledger_is_contiguous(world: World) -> Iterator[Violation]:
    """I8: the rows lead from ledger_floor to next_offset without a gap."""
    for book in world.books:
        expected = book.lane.ledger_floor
        for row in book.ledger:
            if row.from_offset > expected:
                yield _at(book, f"offsets [{expected}, {row.from_offset}) are in no row of the ledger")
            expected = max(expected, row.to_offset)
        if expected < book.lane.next_offset:
            yield _at(book, f"offsets [{expected}, {book.lane.next_offset}) are in no row of the ledger")
        if expected > book.lane.next_offset:
            yield _at(book, f"the ledger reaches {expected}, next_offset is {book.lane.next_offset}")
        controls = sum(row.controls for row in book.ledger)
        if controls != book.lane.controls:
            yield _at(book, f"the lane counts {book.lane.controls} controls, its ledger {controls}")


def accounts_belong_to_lanes(world: World) -> Iterator[Violation]:
    """I8: nothing is booked for a lane that is not there."""
    lanes = {(lane.service, lane.tp) for lane in world.tables.lanes}
    accounts: list[LedgerRow | ExceptionRow] = [*world.tables.ledger, *world.tables.exceptions]
    for row in accounts:
        if (row.service, row.tp) not in lanes:
            yield Violation("I8", "an account of a lane that is not there", (row.service, str(row.tp)))


def exceptions_add_up(world: World) -> Iterator[Violation]:
    """I8: exceptions do not overlap, lie inside one row each, and add up to that row's classes."""
    for book in world.books:
        for one, other in pairwise(book.exceptions):
            if other.first_offset <= one.last_offset:
                yield _at(book, f"two exceptions cover offset {other.first_offset}")
        rows = {row.from_offset: Counter[str]() for row in book.ledger}
        for exception in book.exceptions:
            row = _row_of(book, exception)
            if row is None:
                yield _at(book, f"the exception at {exception.first_offset} lies in no row of the ledger")
            else:
                rows[row.from_offset][exception.fate] += exception.last_offset - exception.first_offset + 1
        for row in book.ledger:
            yield from _sums(book, row, rows[row.from_offset])


def _row_of(book: Book, exception: ExceptionRow) -> LedgerRow | None:
    row = book.row(exception.first_offset)
    return row if row is not None and exception.last_offset < row.to_offset else None


def _sums(book: Book, row: LedgerRow, found: Counter[str]) -> Iterator[Violation]:
    booked = {
        "duplicate": row.duplicates,
        "fenced": row.fenced,
        "dead_letter": row.dead_letters,
        "control": row.controls,
        "lost": row.lost,
    }
    what = f"[{row.from_offset}, {row.to_offset})"
    for fate, number in booked.items():
        if found[fate] != number:
            yield _at(book, f"{what} books {number} as {fate}, its exceptions are {found[fate]}")
    if row.effects + sum(booked.values()) != row.to_offset - row.from_offset:
        yield _at(book, f"the classes of {what} do not add up to its offsets")


def records_are_booked(world: World) -> Iterator[Violation]:
    """I8: what can be read below next_offset was judged; what cannot is control or lost."""
    for book in world.books:
        for record, fate in book.judged():
            if fate is not None and fate not in JUDGED:
                yield Violation("I8", f"a record is booked as {fate}", (str(record.position),))
        yield from _holes(book)


def _holes(book: Book) -> Iterator[Violation]:
    if book.log is None:
        return
    expected = max(book.lane.ledger_floor, book.log.start)
    end = min(book.lane.next_offset, book.log.end)
    seen = [record.position.offset for record in book.records if record.position.offset < end]
    for offset in [*(one for one in seen if one >= expected), end]:
        for missing in range(expected, offset):
            fate = book.fate(missing)
            if fate is not None and fate not in WITHOUT_RECORD:
                yield Violation("I8", f"booked as {fate}, and there is no record", (str(book.lane.tp.at(missing)),))
        expected = offset + 1


def _at(book: Book, what: str) -> Violation:
    return Violation("I8", what, (book.lane.service, str(book.lane.tp)))


CHECKS = (
    lanes_stand_in_their_log,
    owners_are_fenced,
    ledger_is_contiguous,
    accounts_belong_to_lanes,
    exceptions_add_up,
    records_are_booked,
)
