"""The lane loop: Kafka partitions read in batches, each applied by one PostgreSQL commit.

Theory. The lane's row is the truth (`LaneStore`), the group only shares the Kafka partitions out, and its committed
offsets are advice. What must hold, and how it does:

- Nothing is applied twice, nothing is passed over: a batch begins at the lane's own `next_offset`, and its Advance is a
  compare-and-set on it. Whatever goes wrong, the lane is taken again or sought back; nothing is skipped.
- A seek is no barrier, so an assigned partition is parked (paused, at a made-up position) until its Take is done, and
  what an older assignment began is told by identity (`Owned`).
- `getmany` is called all the time, whatever the lanes do: it is what rejoins the group. Only one task calls it, it is
  never cancelled while the loop runs, and what it returns is sorted in the same step.
- While a batch is applied the next one is fetched and decoded; a lane that has one waiting is left out of the poll. How
  much may wait is bounded in bytes as well (`holding.py`).
- One lane is worked by one task at a time; several lanes at once, up to a bound.
- What a handler or the store raises is judged in one place (`LaneWork.judge`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka import TopicPartition as BrokerPartition
from aiokafka.errors import (
    CorruptRecordException,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)

from flux_common.kafka.admin import Admin
from flux_common.kafka.figures import LaneFigures
from flux_common.kafka.holding import Allowance, within
from flux_common.kafka.lane_work import LaneHandler, LaneLimits, LaneStore, LaneWork
from flux_common.kafka.membership import Membership, Polls
from flux_common.kafka.names import NOWHERE, Names
from flux_common.kafka.owned import Owned, State
from flux_common.kafka.starting import started, stopped
from flux_common.kernel.clock import Clock, millis
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Unavailable
from flux_common.kernel.positions import Lane, TopicPartition
from flux_common.kernel.signals import pause
from flux_common.observability.logging import get_logger
from flux_common.settings import KafkaSettings

__all__ = ["LaneHandler", "LaneLimits", "LaneLoop", "LaneStore"]

log = get_logger(__name__)

POLL_MS: Final = 200
POLL_FULL_MS: Final = 20  # while lanes are left out of the poll
FAILED_SECONDS: Final = 0.2  # after a poll that failed
LOOK_SECONDS: Final = 0.25  # how often quiet lanes are looked at
COMMIT_SECONDS: Final = 1.0
METADATA_MAX_AGE_MS: Final = 5_000  # a new agency's topic is found within this
# A topic's largest batch: a larger one would be fetched only when its Kafka partition comes first in an answer.
PARTITION_FETCH_BYTES: Final = 2 * 2**20
FETCH_BYTES: Final = 8 * 2**20  # in one answer of a broker


class LaneLoop(ConsumerRebalanceListener):  # type: ignore[misc]
    """One member of a group of lane readers.

    `topics` are plain names, or one regular expression over catalogue names; a matching topic that `accepts` refuses
    is alerted and not read. `transactional` tells whether gaps between records are to be expected. `watermarks` asks
    for an Advance of its own every ten seconds at the end of a lane. `jitter` returns a number in [0, 1). `on_tick` is
    called every second while the loop lives.
    """

    def __init__(
        self, settings: KafkaSettings, *, group: str, topics: str | Sequence[str], store: LaneStore,
        handler: LaneHandler, clock: Clock, jitter: Callable[[], float], accepts: Callable[[str], bool] | None = None,
        limits: LaneLimits | None = None, transactional: bool = True, watermarks: bool = True,
        on_tick: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._settings, self._group, self._topics = settings, group, topics
        self._clock, self._jitter, self._on_tick = clock, jitter, on_tick
        self._accepts = accepts or (lambda _topic: True)
        self._limits, self._watermarks = limits or LaneLimits(), watermarks
        self._names = Names(settings.topic_prefix)
        self._work = LaneWork(
            store, handler, Admin.of(settings), self._limits, clock, jitter, self._spawn, transactional=transactional
        )
        self._figures = LaneFigures(clock)
        self._owned: dict[BrokerPartition, Owned] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._consumer: Any = None
        self._failure: BaseException | None = None
        self._ended = asyncio.Event()
        self._membership = Membership(clock, settings.max_poll_interval_ms / 1000)
        self._polls = Polls(clock, self._membership, settings.max_poll_interval_ms / 1000)
        self._looked = self._committed = clock.monotonic()

    # What probes ask.

    @property
    def joined(self) -> bool:
        """Tell whether this is a member of the group that knows its assignment (none of the Kafka partitions is one)."""
        return self._membership.joined

    def lanes(self) -> list[Lane]:
        """Return the lanes that are taken now."""
        return [owned.lane for owned in self._owned.values() if owned.lane is not None]

    def untaken(self) -> list[tuple[TopicPartition, str]]:
        """Return the assigned lanes that stay untaken for too long, and why.

        Lanes that only an operator can free (lost data, unknown agency) are alerted and do not count.
        """
        late = self._clock.monotonic() - self._limits.untaken_alert_s
        waiting = (owned for owned in self._owned.values() if owned.state is State.TAKING)
        return [(owned.tp, owned.why) for owned in waiting if owned.untaken_since <= late]

    # Life.

    async def run(self, stopping: asyncio.Event) -> None:
        """Read and apply until `stopping`; batches in flight are finished. A loop runs once.

        Raises:
            InvariantBroken, or whatever else the failure table does not name: the process must end.
        """
        timeout = self._settings.request_timeout_ms / 1000
        if not await started(self._new_consumer, stopping, timeout, self._on_tick):
            return
        self._spawn(self._poll())
        self._spawn(self._watch(stopping))
        try:
            await self._ended.wait()
            if self._failure is not None:
                raise self._failure
        finally:
            await self._close()

    def _new_consumer(self) -> AIOKafkaConsumer:
        settings = self._settings
        self._consumer = AIOKafkaConsumer(
            group_id=self._names.outward(self._group),
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=max(settings.session_timeout_ms // 5, 200),
            max_poll_interval_ms=settings.max_poll_interval_ms,
            rebalance_timeout_ms=int((self._limits.revoke_wait_s + 20) * 1000),
            max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
            fetch_max_bytes=FETCH_BYTES,
            **(settings.aiokafka_options() | {"metadata_max_age_ms": METADATA_MAX_AGE_MS}),
        )
        self._consumer.subscribe(pattern=self._names.pattern(self._topics), listener=self)
        return self._consumer

    async def _watch(self, stopping: asyncio.Event) -> None:
        """Tell that the loop lives, mend what time mends, and end it when it is to stop."""
        while not stopping.is_set():
            if self._polls.alive:
                self._on_tick()
            self._look_at_ignored()
            self._figures.measure(self._owned.values())
            await pause(stopping, 1.0)
        self._ended.set()

    async def _close(self) -> None:
        """Finish what is in flight, say how far it got, and leave the group."""
        busy = {owned.task for owned in self._owned.values() if owned.task is not None}
        for owned in self._owned.values():
            owned.leave(State.HELD, "stopping", self._clock.monotonic())
        for task in self._tasks - busy:
            task.cancel()
        if busy:
            await asyncio.wait(busy, timeout=self._limits.drain_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._commit()
        for owned in self._owned.values():
            owned.drop()
        self._figures.measure(())
        await stopped(self._consumer)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._fail(problem)

    def _fail(self, problem: BaseException) -> None:
        self._failure = self._failure or problem
        self._ended.set()

    # The group. The client only logs what its listener raises, so nothing may leave these two but through _fail.

    async def on_partitions_revoked(self, revoked: Iterable[BrokerPartition]) -> None:
        """Let go of partitions; a batch in flight may still be applied, for the lane is ours until it is taken."""
        try:
            self._membership.revoked()
            gone = [owned for tp in revoked if (owned := self._owned.pop(tp, None)) is not None]
            for owned in gone:
                owned.drop()
            busy = {owned.task for owned in gone if owned.task is not None}
            if busy:
                await asyncio.wait(busy, timeout=self._limits.revoke_wait_s)
        except Exception as problem:  # noqa: BLE001 - the loop: carried to run(), which raises it
            self._fail(problem)

    def on_partitions_assigned(self, assigned: Iterable[BrokerPartition]) -> None:
        """Park partitions and have their lanes taken; returns at once."""
        try:
            now = self._clock.monotonic()
            self._membership.assigned()
            self._work.advised.clear()
            self._owned = {
                tp: Owned(self._consumer, tp, self._names.inward_partition(tp), now) for tp in sorted(assigned)
            }
            self._spawn(self._work.take([owned for owned in self._owned.values() if self._accepted(owned)]))
        except Exception as problem:  # noqa: BLE001 - the loop: carried to run(), which raises it
            self._fail(problem)

    def _accepted(self, owned: Owned) -> bool:
        if self._accepts(owned.tp.topic):
            return True
        owned.leave(State.IGNORED, Code.AGENCY_NOT_FOUND, self._clock.monotonic())
        log.error("topic of an unknown agency is not read", lane=str(owned.tp), code=Code.AGENCY_NOT_FOUND)
        return False

    def _look_at_ignored(self) -> None:
        """Take the lanes of topics that have become acceptable (the agency was registered)."""
        known = [o for o in self._owned.values() if o.state is State.IGNORED and self._accepts(o.tp.topic)]
        for owned in known:
            owned.leave(State.TAKING, "registered", self._clock.monotonic())
        if known:
            self._spawn(self._work.take(known))

    # Polling.

    async def _poll(self) -> None:
        """Poll for ever."""
        while True:
            hungry = self._hungry()
            full = len(hungry) < len(self._owned)
            asked = hungry or [NOWHERE] if full else ()
            if not await self._poll_once(asked, POLL_FULL_MS if full else POLL_MS):
                await asyncio.sleep(FAILED_SECONDS)

    async def _poll_once(self, tps: Sequence[BrokerPartition], timeout_ms: int) -> bool:
        """Poll and sort what that returns, of which nothing is kept here; False if the poll failed."""
        fetched = await self._fetch(*tps, timeout_ms=timeout_ms)
        if fetched is not None:
            await self._sort(fetched)
        return fetched is not None

    async def _fetch(self, *tps: BrokerPartition, timeout_ms: int) -> dict[BrokerPartition, list[Any]] | None:
        """Poll once; None if that failed, and then what it means for which lane is settled here."""
        try:
            with self._polls.poll(), within(self._allowance()):
                fetched: dict[BrokerPartition, list[Any]] = await self._consumer.getmany(
                    *tps, timeout_ms=timeout_ms, max_records=self._limits.records_max
                )
        except OffsetOutOfRangeError as problem:
            self._leave(problem.args[0], Code.LANE_DATA_LOST, "The broker does not have the lane's next offset")
        except TopicAuthorizationFailedError as problem:
            self._leave(self._of_topics(problem.args), Code.TOPIC_MISSING, "The topic may not be read")
        except NoOffsetForPartitionError:
            self._refetch()  # a partition that was asked for before it could be parked
        except CorruptRecordException as problem:
            await self._suspect(tps, problem)
        except KafkaError as problem:
            log.warning("poll failed", group=self._group, error=type(problem).__name__)
            self._refetch()
        except Exception as problem:  # noqa: BLE001 - the loop: a partition's bytes must not end the others' lanes
            await self._suspect(tps, problem)
        else:
            return fetched
        return None

    async def _suspect(self, tps: Sequence[BrokerPartition], problem: Exception) -> None:
        """Find the lane whose bytes cannot be read by polling each alone; it is left, loudly, and tried again."""
        self._refetch()
        if len(tps) == 1:
            log.error("lane cannot be read", lane=str(tps[0]), exc_info=problem)
            self._leave(tps, Code.BROKER_UNAVAILABLE, "The client cannot read the broker's bytes")
            return
        for tp in self._hungry():
            if (owned := self._owned.get(tp)) is not None and owned.state is State.READY:
                await self._poll_once((tp,), POLL_MS)

    def _hungry(self) -> list[BrokerPartition]:
        """Return what may be polled: the lanes that have neither a whole batch waiting nor their share of the room."""
        allowance, number = self._allowance(), self._limits.records_max
        return [tp for tp, owned in self._owned.items() if len(owned.buffer) < number and allowance.bound(tp) > 0]

    def _allowance(self) -> Allowance:
        """Return what the next poll may take."""
        waiting = {tp: owned.held for tp, owned in self._owned.items() if owned.held}
        return Allowance(self._limits.held_bytes_max - sum(waiting.values()), self._limits.bytes_max, waiting)

    async def _sort(self, fetched: dict[BrokerPartition, list[Any]]) -> None:
        """Hand what was fetched to its lanes. Nothing suspends between the poll and the end of this step."""
        now = self._clock.monotonic()
        for tp, records in fetched.items():
            owned = self._owned.get(tp)
            if owned is not None and owned.state is State.READY:  # else fetched under an older assignment or Take
                owned.receive(records, now)
                self._work.wake(owned)
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            for tp, owned in self._owned.items():
                if owned.idle and tp not in fetched:
                    self._tick_if_due(owned, await owned.position(), now)
        if self._work.advised and now - self._committed >= COMMIT_SECONDS:
            self._committed = now
            self._spawn(self._commit())

    def _tick_if_due(self, owned: Owned, position: int, now: float) -> None:
        """Advance a lane without records; legal because every poll since it was last touched returned none for it."""
        assert owned.lane is not None
        behind = position - owned.lane.next_offset
        controls = behind > 0 and now - owned.touched >= self._limits.quiet_s
        waited = self._watermarks and now - owned.ticked >= self._limits.watermark_s
        caught_up = waited and behind >= 0 and self._at_end(owned, position)
        if controls or caught_up:
            self._work.tick(owned, position, caught_up=caught_up)

    def _at_end(self, owned: Owned, position: int) -> bool:
        """Tell whether a poll of late saw nothing behind `position`; a stopped broker looks like the end, too."""
        polled_ms = owned.polled_ms
        fresh = polled_ms is not None and millis(self._clock.now()) - polled_ms < self._limits.fresh_s * 1000
        return fresh and owned.highwater == position

    def _leave(self, tps: Iterable[BrokerPartition], code: Code, why: str) -> None:
        """Have lanes taken again after a pause; where something is lost or exchanged, the store then says so."""
        for tp in tps:
            owned = self._owned.get(tp)
            if owned is not None and owned.idle:  # a lane that is worked meets the same error again when it is done
                self._work.judge(owned, Unavailable(code, why))

    def _of_topics(self, topics: Iterable[Any]) -> list[BrokerPartition]:
        """Return the partitions of topics of the broker."""
        return [tp for tp in self._owned if tp.topic in topics]

    def _refetch(self) -> None:
        """After a failed poll: what it had fetched is gone, yet the client's positions may be past it."""
        now = self._clock.monotonic()
        for owned in self._owned.values():
            if owned.state is State.READY:
                owned.refetch(now)

    async def _commit(self) -> None:
        """Tell the group how far the lanes are; only lag and autoscaling read it."""
        advised, self._work.advised = self._work.advised, {}
        if not advised:
            return
        try:
            async with asyncio.timeout(5):
                await self._consumer.commit(advised)
        except (KafkaError, TimeoutError) as problem:
            log.info("advisory commit failed", group=self._group, error=type(problem).__name__)
