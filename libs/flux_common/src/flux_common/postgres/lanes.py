"""Lanes: one PostgreSQL commit per Kafka advance.

Theory. A lane is one Kafka partition as a consumer backed by PostgreSQL sees it. Its row is the truth about where to go on;
the group's committed offsets are advice. Whoever *takes* a lane raises `owner_epoch` under the row lock, which waits until
an older owner's commit is settled; so the answer is final, and an owner whose epoch is no longer there can commit nothing:
the first statement of every Advance compares `next_offset` and `owner_epoch`, and everything else follows in the same
transaction (invariants I1, I2). What an Advance did with each offset is booked in the ledger (I8).

| event | precondition | effect |
|---|---|---|
| take | any | epoch + 1; the taker goes on at next_offset |
| advance | next_offset and epoch are mine | next_offset moves, with effects, outbox rows, dead letters, ledger |
| tick | the same; no record was returned since | next_offset moves over control records; the watermark follows |
| accept_loss | an operator's word; next_offset is below the log start | it moves there, the range is booked as *lost* |
| anything | they are not mine | `Fenced`: nothing was changed |

When a COMMIT's answer is lost the caller cannot know; it takes the lane again, and the row tells. What a caller hands over
is not trusted to be a batch: records outside the lane's next offsets, or booked twice, would falsify the ledger, and are a
contradiction (`InvariantBroken`) before anything is written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from flux_common.contracts.envelope import Outgoing
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Fenced, InvariantBroken, LaneStopped
from flux_common.kernel.positions import Lane, LaneBatch, Received, TopicPartition
from flux_common.postgres.database import Connection, Database
from flux_common.postgres.outbox import DeadLetter, insert_dead_letters, insert_outbox
from flux_common.postgres.queries import Queries
from flux_common.postgres.sqlstates import KeyContended, KeyRaces

_SQL = Queries.load("flux_common.postgres", "lanes.sql")

ExceptionClass = Literal["duplicate", "fenced", "dead_letter"]


@dataclass(frozen=True, slots=True)
class LedgerException:
    """A record that had no effect: which, of what class, with which code, and what to follow."""

    offset: int
    kind: ExceptionClass
    code: str | None = None
    ref: str | None = None


@dataclass(slots=True)
class Advance:
    """One Advance in progress. `now` is the transaction's time on the database's clock."""

    batch: LaneBatch
    connection: Connection
    now: datetime
    outgoing: list[Outgoing] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    exceptions: list[LedgerException] = field(default_factory=list)

    def emit(self, events: Sequence[Outgoing]) -> None:
        """Add events to the outbox, in this order."""
        self.outgoing.extend(events)

    def duplicate(self, record: Received, *, code: str | None = None, ref: str | None = None) -> None:
        """Book a record as one whose effect already stands."""
        self.exceptions.append(LedgerException(record.position.offset, "duplicate", code, ref))

    def fenced(self, record: Received, *, code: str | None = None, ref: str | None = None) -> None:
        """Book a record as a report of something older."""
        self.exceptions.append(LedgerException(record.position.offset, "fenced", code, ref))

    def bury(self, record: Received, letter: DeadLetter) -> None:
        """Book a record as a dead letter."""
        self.dead_letters.append(letter)
        self.exceptions.append(LedgerException(record.position.offset, "dead_letter", letter.code))


class PostgresLanes:
    """The lanes of one service; the kafka room's `LaneStore`.

    `told` hears of the events of each committed Advance; `room` is asked about the agencies whose events an Advance would
    write, and raises `Overloaded` where they must wait. A lane that waits is not worked again only to hear the same.
    """

    def __init__(
        self,
        database: Database,
        consumer: str,
        told: Callable[[Sequence[Outgoing]], None] = lambda _events: None,
        room: Callable[[Collection[str]], None] = lambda _agencies: None,
    ) -> None:
        self._database = database
        self._consumer = consumer
        self._told = told
        self._room = room
        self._races: dict[TopicPartition, KeyRaces] = {}
        self._waiting: dict[TopicPartition, set[str]] = {}  # for room, for events of these agencies

    async def take(self, tp: TopicPartition, *, topic_id: str, log_start: int, log_end: int) -> Lane:
        """Become the owner of a lane and return where to go on.

        Raises:
            LaneStopped: the topic is another one than before, or `next_offset` is outside [log_start, log_end].
            Unavailable: PostgreSQL does not answer.
        """
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_SQL["take"], tp.topic, tp.kafka_partition)
            if row is None:
                row = await connection.fetchrow(_SQL["create"], tp.topic, tp.kafka_partition, topic_id, log_start)
            if row is None:  # somebody created it in between
                row = await connection.fetchrow(_SQL["take"], tp.topic, tp.kafka_partition)
        assert row is not None
        lane = Lane(self._consumer, tp, row["topic_id"], row["owner_epoch"], row["next_offset"])
        return _judged(lane, topic_id, log_start, log_end)

    async def tick(self, lane: Lane, end_offset: int, *, caught_up: bool) -> Lane:
        """Advance without records: over control records up to `end_offset`, and the watermark when caught up.

        Raises:
            Fenced: the lane is not ours any more.
            InvariantBroken: `end_offset` is behind the lane.
        """
        controls = end_offset - lane.next_offset
        if controls < 0:
            raise _no_batch(lane, f"it would go back to {end_offset}")
        args = (lane.tp.topic, lane.tp.kafka_partition, lane.next_offset, end_offset, lane.owner_epoch, controls)
        async with self._database.transaction() as connection:
            if await connection.fetchval(_SQL["idle"], *args, caught_up) is None:
                raise _fenced(lane)
            if controls:
                await _book(connection, LaneBatch(lane, (), end_offset), [])
        return Lane(lane.consumer, lane.tp, lane.topic_id, lane.owner_epoch, end_offset)

    @asynccontextmanager
    async def advance(self, batch: LaneBatch, agencies: Collection[str] = ()) -> AsyncIterator[Advance]:
        """Open the one transaction that applies `batch`; it is booked and committed when the block ends.

        Raises:
            Fenced: the lane is not ours any more; nothing was changed.
            InvariantBroken: the batch is not what follows on the lane, a record was booked twice, or a key stayed taken
                for the third time in a row.
            Overloaded: there is no room for what it would write; nothing was changed.
        """
        _refuse_no_batch(batch)
        self._room(self._waiting.get(batch.lane.tp, ()))
        races = self._races.setdefault(batch.lane.tp, KeyRaces())
        try:
            async with self._advance(batch, agencies) as advance:
                yield advance
            self._told(advance.outgoing)
        except KeyContended as problem:
            told = races.judge(problem)
            if told is problem:
                raise
            raise told from problem
        races.settled()

    @asynccontextmanager
    async def _advance(self, batch: LaneBatch, agencies: Collection[str]) -> AsyncIterator[Advance]:
        lane = batch.lane
        async with self._database.transaction(agencies) as connection:
            now = await connection.fetchval(
                _SQL["advance"],
                lane.tp.topic,
                lane.tp.kafka_partition,
                lane.next_offset,
                batch.end_offset,
                lane.owner_epoch,
                batch.controls,
                _latest(batch),
            )
            if now is None:
                raise _fenced(lane)
            advance = Advance(batch, connection, now)
            yield advance
            self._ask_for_room(lane.tp, advance)
            await insert_outbox(connection, advance.outgoing)
            await insert_dead_letters(connection, advance.dead_letters)
            await _book(connection, batch, advance.exceptions)

    def _ask_for_room(self, tp: TopicPartition, advance: Advance) -> None:
        self._waiting[tp] = {event.agency_id for event in advance.outgoing}
        self._room(self._waiting[tp])
        del self._waiting[tp]

    async def accept_loss(
        self, connection: Connection, tp: TopicPartition, *, topic_id: str, log_start: int, reason: str
    ) -> tuple[int, int]:
        """Let a lane go on at the log start, on an operator's word; return the lost offsets, first and last.

        The caller writes the fact of it in the same transaction. Whoever owned the lane is fenced.

        Raises:
            LaneStopped: the lane has lost nothing (`LANE_DATA_LOST`), or the topic is another one (`TOPIC_EXCHANGED`).
        """
        row = await connection.fetchrow(_SQL["lock"], tp.topic, tp.kafka_partition)
        if row is None or row["next_offset"] >= log_start:
            raise LaneStopped(Code.LANE_DATA_LOST, f"{tp} has lost nothing below {log_start}")
        if row["topic_id"] != topic_id:
            raise LaneStopped(Code.TOPIC_EXCHANGED, f"{tp} is another topic than the one it read before")
        first, last = row["next_offset"], log_start - 1
        place = (tp.topic, tp.kafka_partition)
        await connection.execute(_SQL["lose"], *place, log_start)
        await connection.execute(_SQL["book"], *place, first, log_start, 0, 0, 0, 0, 0, log_start - first)
        await connection.execute(
            _SQL["book_exceptions"], *place, [first], [last], ["lost"], [str(Code.LANE_DATA_LOST)], [reason]
        )
        return first, last


def _refuse_no_batch(batch: LaneBatch) -> None:
    expected = batch.lane.next_offset
    for record in batch.records:
        if record.position.tp != batch.lane.tp or record.position.offset < expected:
            raise _no_batch(batch.lane, f"{record.position} does not follow on {expected}")
        expected = record.position.offset + 1
    if batch.end_offset < expected or batch.end_offset == batch.lane.next_offset:
        raise _no_batch(batch.lane, f"it would end at {batch.end_offset}")


def _no_batch(lane: Lane, why: str) -> InvariantBroken:
    return InvariantBroken(
        Code.INVARIANT_BROKEN, f"What {lane.tp} shall apply at {lane.next_offset} is no batch: {why}"
    )


def _judged(lane: Lane, topic_id: str, log_start: int, log_end: int) -> Lane:
    if lane.topic_id != topic_id:
        raise LaneStopped(Code.TOPIC_EXCHANGED, f"{lane.tp} is another topic than the one it read before")
    if not log_start <= lane.next_offset <= log_end:
        raise LaneStopped(
            Code.LANE_DATA_LOST,
            f"{lane.tp} wants offset {lane.next_offset}, the log holds [{log_start}, {log_end}); "
            "see First aid in docs/operations.md",
        )
    return lane


def _fenced(lane: Lane) -> Fenced:
    return Fenced(Code.LANE_FENCED, f"{lane.tp} is owned by somebody newer").with_context(epoch=lane.owner_epoch)


def _latest(batch: LaneBatch) -> datetime | None:
    return max((record.appended_at for record in batch.records if record.appended_at is not None), default=None)


async def _book(connection: Connection, batch: LaneBatch, exceptions: Sequence[LedgerException]) -> None:
    lane = batch.lane
    booked = {exception.offset for exception in exceptions}
    if len(booked) != len(exceptions) or (booked and not booked <= {r.position.offset for r in batch.records}):
        raise _no_batch(lane, "a record was booked twice, or is of another batch")
    count = {
        kind: sum(1 for exception in exceptions if exception.kind == kind)
        for kind in ("duplicate", "fenced", "dead_letter")
    }
    effects = len(batch.records) - sum(count.values())
    await connection.execute(
        _SQL["book"],
        lane.tp.topic,
        lane.tp.kafka_partition,
        lane.next_offset,
        batch.end_offset,
        effects,
        count["duplicate"],
        count["fenced"],
        count["dead_letter"],
        batch.controls,
        0,
    )
    rows: list[tuple[int, int, str, str | None, str | None]]
    rows = [(e.offset, e.offset, e.kind, e.code, e.ref) for e in exceptions]
    rows += [(first, last, "control", None, None) for first, last in batch.control_ranges()]
    if rows:
        await connection.execute(
            _SQL["book_exceptions"],
            lane.tp.topic,
            lane.tp.kafka_partition,
            *(list(column) for column in zip(*sorted(rows, key=lambda row: row[0]), strict=True)),
        )
