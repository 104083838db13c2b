"""What is done with one lane: taken, worked batch by batch, ticked while it is quiet, left when something fails.

Offsets without a record are *control* in the ledger. Where transactions write the topic that is all there is to it; where none
does, whoever may write it has used one, or the log has lost records, and every gap is an alert besides, between two records as
well as behind the last. The lane goes on: an agency's transaction must not stop its own lane, nothing that could be read was
passed over, and `explain` names the range, so that every offset stays accounted for.

The failure table of docs/semantics.md is `LaneWork.judge` and nowhere else. One task at a time works on a lane
(`Owned.task`); `slots` bounds how many lanes are at the database at once.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

from aiokafka import TopicPartition as BrokerPartition

from flux_common.kafka.admin import Admin, LogFacts
from flux_common.kafka.owned import Owned, State
from flux_common.kafka.records import unreadable
from flux_common.kernel.clock import Clock
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import (
    Fenced,
    FluxError,
    InvalidMessage,
    InvariantBroken,
    LaneStopped,
    Overloaded,
    RunBroken,
    Unavailable,
)
from flux_common.kernel.positions import Lane, LaneBatch, Received, TopicPartition
from flux_common.observability import metrics
from flux_common.observability.logging import get_logger
from flux_common.observability.tracing import LINKS_MAX, process_span

log = get_logger(__name__)


class LaneStore(Protocol):
    """Where lanes live; implemented by the postgres room."""

    async def take(self, tp: TopicPartition, *, topic_id: str, log_start: int, log_end: int) -> Lane:
        """Become the owner of a lane and say where to go on. Raises LaneStopped, Unavailable."""
        ...

    async def tick(self, lane: Lane, end_offset: int, *, caught_up: bool) -> Lane:
        """Advance without records: over control records, and the watermark if caught up. Raises Fenced, Unavailable."""
        ...


class LaneHandler(Protocol):
    """What a service does with the records of a lane.

    Both may return seconds for which the lane then rests: what is worth little gathers meanwhile to batches worth a commit.
    """

    async def apply(self, batch: LaneBatch) -> float | None:
        """Apply a batch in ONE transaction that moves the lane to `batch.end_offset`; raise, and nothing happened."""
        ...

    async def refuse(self, batch: LaneBatch, problem: FluxError) -> float | None:
        """Dead-letter the records of `batch` for `problem`, and move the lane, in one transaction.

        It is one record, or several whose bytes could not be read: a batch that unfolds without bound may have thousands.
        """
        ...


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """Bounds of a lane loop."""

    records_max: int = 5_000  # in one batch, and fetched ahead of it
    # Fewer in a lane's next batch; asked each time.
    records_max_of: Callable[[TopicPartition], int | None] = lambda _tp: None
    bytes_max: int = 4 * 2**20  # the same in bytes; the theory of these two is that of holding.py
    held_bytes_max: int = 48 * 2**20  # fetched ahead in all lanes
    concurrency: int = 4  # lanes at the database at once; below the pool's size
    topics_take_turns: bool = False  # one lane of a topic at a time: where they would wait for one lock, holding slots
    revoke_wait_s: float = 10.0  # how long a rebalance waits for batches in flight
    drain_s: float = 25.0  # the same at the end
    untaken_alert_s: float = 60.0
    watermark_s: float = 10.0
    quiet_s: float = 1.0  # quiet for so long before control records alone are worth a commit
    fresh_s: float = 5.0  # a poll younger than this proves that the end is the end
    backoff_max_s: float = 30.0


class LaneWork:
    """The acts on lanes. `spawn` starts a task whose failure ends the loop."""

    def __init__(
        self, store: LaneStore, handler: LaneHandler, admin: Admin, limits: LaneLimits, clock: Clock,
        jitter: Callable[[], float], spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        transactional: bool,
    ) -> None:  # fmt: skip
        self._transactional = transactional
        self._store, self._handler, self._admin, self._limits = store, handler, admin, limits
        self._clock, self._jitter, self._spawn = clock, jitter, spawn
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.advised: dict[BrokerPartition, int] = {}  # what the group is to be told

    # Taking.

    async def take(self, wanted: Sequence[Owned], delay: float = 0.0) -> None:
        """Take lanes after a pause; those that cannot be taken yet try again by themselves."""
        await asyncio.sleep(delay)
        live = [owned for owned in wanted if owned.state is State.TAKING]
        try:
            facts = await self._admin.logs([owned.tp for owned in live])
        except Unavailable as problem:
            for owned in live:
                self.judge(owned, problem)
            return
        await asyncio.gather(*(self._take_one(owned, facts.get(owned.tp)) for owned in live))

    async def _take_one(self, owned: Owned, facts: LogFacts | None) -> None:
        try:
            if facts is None:
                raise Unavailable(Code.TOPIC_MISSING, f"{owned.tp} cannot be seen on the broker")
            async with self._slots:
                if owned.state is not State.TAKING:
                    return
                lane = await self._store.take(
                    owned.tp, topic_id=facts.topic_id, log_start=facts.log_start, log_end=facts.log_end
                )
        except FluxError as problem:
            self.judge(owned, problem)
            return
        if owned.state is State.TAKING:
            owned.begin(lane, self._clock.monotonic())
            metrics.lane_takes.labels(owned.tp.topic).inc()
            log.info("lane taken", lane=str(owned.tp), epoch=lane.owner_epoch, next_offset=lane.next_offset)

    # Working.

    def wake(self, owned: Owned) -> None:
        """Have a lane's buffer worked, if nobody does so already."""
        if owned.task is None and owned.buffer:
            owned.task = self._spawn(self._work(owned))

    async def _work(self, owned: Owned) -> None:
        """Apply what is buffered of one lane, batch after batch."""
        try:
            while owned.buffer and owned.state is State.READY:
                # A rest is the whole topic's, where its lanes take turns; it holds no slot.
                async with self._turn(owned):
                    async with self._slots:
                        rest_s = await self._work_next(owned)
                    await asyncio.sleep(rest_s)
        except FluxError as problem:
            self.judge(owned, problem)
        finally:
            owned.task = None

    def _records_max(self, owned: Owned) -> int:
        most, fewer = self._limits.records_max, self._limits.records_max_of(owned.tp)
        return most if fewer is None else min(most, fewer)

    def _turn(self, owned: Owned) -> AbstractAsyncContextManager[Any]:
        return self._turns[owned.tp.topic] if self._limits.topics_take_turns else nullcontext()

    async def _work_next(self, owned: Owned) -> float:
        """Work the next batch; whoever waits for a slot, or rests after it, holds none."""
        records = owned.next_records(self._records_max(owned), self._limits.bytes_max)
        return await self._work_batch(owned, records) if records else 0.0

    async def _work_batch(self, owned: Owned, records: list[Received]) -> float:
        begun = self._clock.monotonic()
        outcome = "failed"
        try:
            with self._span(owned, records):
                rest_s = await self._advance(owned, records)
            outcome = "applied"
        except FluxError as problem:
            outcome = type(problem).__name__
            raise
        finally:
            self._record(owned, records, outcome, begun)
        owned.tries = 0
        return rest_s

    @contextmanager
    def _span(self, owned: Owned, records: Sequence[Received]) -> Iterator[None]:
        """Work a batch under its process span; links are looked for in its first records alone."""
        partition = {"messaging.destination.partition.id": str(owned.tp.kafka_partition)}
        linked = [record.headers for record in records[:LINKS_MAX]]
        with process_span(owned.tp.topic, linked, **partition) as span:
            span.set_attribute("messaging.batch.message_count", len(records))
            yield

    async def _advance(self, owned: Owned, records: Sequence[Received]) -> float:
        """Apply records; where that is refused, halve them until the refused one stands alone, or none can be read.

        Returns how many seconds the lane rests.
        """
        lane = owned.lane
        if lane is None or not records:
            return 0.0
        batch = LaneBatch(lane, records, records[-1].position.offset + 1)
        whys = [why for record in records if (why := unreadable(record))]
        refused: FluxError | None = whys[0] if whys else None
        if refused is None:
            try:
                rest_s = await self._handler.apply(batch)
            except (InvalidMessage, RunBroken) as problem:
                refused = problem
        if refused is not None and len(whys) < len(records) > 1:
            middle = len(records) // 2
            return max(await self._advance(owned, records[:middle]), await self._advance(owned, records[middle:]))
        if refused is not None:
            rest_s = await self._refuse(batch, refused)
        self._advanced(owned, batch)
        return rest_s or 0.0

    def _alert_of_gaps(self, batch: LaneBatch) -> None:
        """Say that what was booked has offsets without a record, where no transaction writes the topic."""
        if batch.controls and not self._transactional:
            metrics.lane_gap_offsets.inc(batch.controls)
            log.error("offsets without records", lane=str(batch.lane.tp), gaps=batch.control_ranges()[:10])

    async def _refuse(self, batch: LaneBatch, problem: FluxError) -> float | None:
        position, number = batch.records[0].position, len(batch.records)
        log.warning("records refused", position=str(position), records=number, code=problem.code, error=problem.message)
        try:
            return await self._handler.refuse(batch, problem)
        except (InvalidMessage, RunBroken) as again:
            raise InvariantBroken(Code.INVARIANT_BROKEN, f"The refusal of {position} was refused") from again

    def _advanced(self, owned: Owned, batch: LaneBatch) -> None:
        self._alert_of_gaps(batch)
        owned.lane = replace(batch.lane, next_offset=batch.end_offset)
        owned.touched = self._clock.monotonic()
        owned.stamp = batch.records[-1].appended_at
        if owned.state is not State.DROPPED:
            self.advised[owned.broker] = batch.end_offset

    # Quiet lanes.

    def tick(self, owned: Owned, position: int, *, caught_up: bool) -> None:
        """Advance a lane without records, over control records up to `position`, and its watermark."""
        owned.task = self._spawn(self._tick(owned, position, caught_up))

    async def _tick(self, owned: Owned, position: int, caught_up: bool) -> None:
        lane = owned.lane
        assert lane is not None
        try:
            async with self._slots:
                owned.lane = await self._store.tick(lane, position, caught_up=caught_up)
            self._alert_of_gaps(LaneBatch(lane, (), position))
            owned.touched = self._clock.monotonic()
            owned.ticked = owned.touched if caught_up else owned.ticked
            if owned.state is not State.DROPPED:
                self.advised[owned.broker] = position
        except FluxError as problem:
            self.judge(owned, problem)
        finally:
            owned.task = None
            self.wake(owned)

    # The failure table.

    def judge(self, owned: Owned, problem: FluxError) -> None:
        """Do with a lane what the class of `problem` says; raises what it does not name."""
        if owned.state is State.DROPPED and isinstance(problem, Unavailable | Fenced | LaneStopped):
            return
        now = self._clock.monotonic()
        match problem:
            case Overloaded():
                owned.leave(State.HELD, problem.code, now)
                self._spawn(self._release(owned, self._pause_for(owned, problem)))
            case Unavailable():
                owned.leave(State.TAKING, problem.code, now)
                self._spawn(self.take([owned], self._pause_for(owned, problem)))
            case Fenced():
                owned.leave(State.TAKING, problem.code, now)
                self._spawn(self.take([owned], 1 + 4 * self._jitter()))
            case LaneStopped():
                owned.leave(State.STOPPED, problem.code, now)
                log.error("lane stopped", lane=str(owned.tp), code=problem.code, error=problem.message)
                return
            case _:
                raise problem
        log.warning("lane left", lane=str(owned.tp), code=problem.code, error=problem.message, tries=owned.tries)

    def _pause_for(self, owned: Owned, problem: Unavailable) -> float:
        owned.tries += 1
        most = self._limits.backoff_max_s if problem.retry_max is None else problem.retry_max
        ceiling: float = min(problem.retry_in * 2 ** min(owned.tries - 1, 10), most)
        return ceiling * (0.5 + self._jitter() / 2)

    async def _release(self, owned: Owned, delay: float) -> None:
        await asyncio.sleep(delay)
        if owned.state is State.HELD:
            owned.rewind(self._clock.monotonic())
            owned.resume()

    def _record(self, owned: Owned, records: Sequence[Received], outcome: str, begun: float) -> None:
        seconds = self._clock.monotonic() - begun
        metrics.batches.labels(owned.tp.topic, outcome).inc()
        metrics.batch_records.labels(owned.tp.topic).observe(len(records))
        metrics.batch_duration_seconds.labels(owned.tp.topic).observe(seconds)
        log.info(
            "batch", lane=str(owned.tp), first=records[0].position.offset, records=len(records), outcome=outcome,
            duration_ms=round(seconds * 1000, 1),
        )  # fmt: skip
