"""The work consumer: items handed out while there is room, offsets kept in Kafka.

Theory. Work needs no lane: an item is fenced by its term, and whoever does it twice says the same thing twice. So the
group's committed offsets are the truth here, and at-least-once is enough. What must hold: `getmany` is called all the
time while items are worked for minutes (it keeps the membership); nothing is handed out when there is no room; an
offset is committed only when the caller says so (the contiguous prefix is the caller's); revocation returns at once.
A group without an offset, or with one that the log no longer holds, begins at the log start: that is a redelivery.
The callbacks are plain functions: the client begins to fetch under a new assignment only after `assigned` returned, and
never returns what it fetched under an older one, so nothing is handed out of a Kafka partition that is not ours. A poll
that fails may already have taken records of other Kafka partitions and lost them: reading goes back to what was handed out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka import TopicPartition as BrokerPartition
from aiokafka.errors import KafkaError

from flux_common.kafka.membership import Membership, Polls
from flux_common.kafka.names import NOWHERE, Names
from flux_common.kafka.records import received
from flux_common.kafka.starting import started, stopped
from flux_common.kernel.clock import Clock
from flux_common.kernel.positions import Received, TopicPartition
from flux_common.kernel.signals import pause
from flux_common.observability.logging import get_logger
from flux_common.settings import KafkaSettings

log = get_logger(__name__)

POLL_MS: Final = 200
COMMIT_SECONDS: Final = 10.0
GO_BACK_SECONDS: Final = 10.0


class WorkListener(Protocol):
    """Whoever works the items. Every call returns at once."""

    def room(self) -> int:
        """Return how many more items may be handed out now."""
        ...

    def deliver(self, records: Sequence[Received]) -> None:
        """Take items over; at most as many as `room` last said."""
        ...

    def assigned(self, tps: frozenset[TopicPartition]) -> None:
        """Hear of the whole assignment: items of other Kafka partitions are not ours any more."""
        ...

    def revoked(self, tps: frozenset[TopicPartition]) -> None:
        """Hear that these may be given to others; what comes back is said by `assigned`."""
        ...


class WorkConsumer(ConsumerRebalanceListener):  # type: ignore[misc]
    """One member of a group that shares a topic of work items."""

    def __init__(
        self, settings: KafkaSettings, *, group: str, topic: str, listener: WorkListener, clock: Clock,
        on_tick: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._settings, self._group, self._topic = settings, group, topic
        self._listener, self._clock, self._on_tick = listener, clock, on_tick
        self._names = Names(settings.topic_prefix)
        self._consumer: Any = None
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._handed_out: dict[BrokerPartition, int] = {}  # under this assignment: the offset after the last one
        self._alone = self._turn = 0  # polls of one Kafka partition each that are left; whose turn it was
        self._membership = Membership(clock, settings.max_poll_interval_ms / 1000)
        self._polls = Polls(clock, self._membership, settings.max_poll_interval_ms / 1000)
        self._failure: BaseException | None = None

    @property
    def joined(self) -> bool:
        """Tell whether this is a member of the group that knows its assignment (none of the Kafka partitions is one)."""
        return self._consumer is not None and self._membership.joined

    async def run(self, stopping: asyncio.Event) -> None:
        """Hand out items until `stopping`; then leave the group. Commits go on working until it returns.

        Raises whatever the listener raises: the process must end.
        """
        timeout = self._settings.request_timeout_ms / 1000
        if not await started(self._new_consumer, stopping, timeout, self._on_tick):
            self._consumer = None
            return
        poll = asyncio.create_task(self._poll())
        try:
            while not stopping.is_set() and not poll.done() and self._failure is None:
                if self._polls.alive:
                    self._on_tick()
                await pause(stopping, 0.5)
            if self._failure is not None:
                raise self._failure
            if poll.done():
                poll.result()
        finally:
            poll.cancel()
            await asyncio.gather(poll, return_exceptions=True)
            await self._stop()

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> bool:
        """Commit `offsets` (the next one wanted, per Kafka partition); False if that could not be done.

        A refused commit costs a redelivery, nothing else. Kafka partitions that are not ours any more are left out.
        """
        mine = {self._names.outward_partition(tp): offset for tp, offset in offsets.items() if tp in self._assigned}
        if not mine or self._consumer is None:
            return False
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                await self._consumer.commit(mine)
        except (KafkaError, TimeoutError) as problem:
            log.warning("commit failed", group=self._group, error=type(problem).__name__)
            return False
        return len(mine) == len(offsets)

    def _new_consumer(self) -> AIOKafkaConsumer:
        settings = self._settings
        self._consumer = AIOKafkaConsumer(
            group_id=self._names.outward(self._group),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=max(settings.session_timeout_ms // 5, 200),
            max_poll_interval_ms=settings.max_poll_interval_ms,
            rebalance_timeout_ms=settings.max_poll_interval_ms,
            **settings.aiokafka_options(),
        )
        self._consumer.subscribe(pattern=self._names.pattern([self._topic]), listener=self)
        return self._consumer

    async def _stop(self) -> None:
        consumer, self._consumer = self._consumer, None
        await stopped(consumer)

    async def _poll(self) -> None:
        failed = False
        while True:
            room = self._listener.room()
            try:
                if failed:
                    async with asyncio.timeout(GO_BACK_SECONDS):
                        await self._go_back()
                    failed = False
                asked = self._next_asked() if room > 0 else (NOWHERE,)
                with self._polls.poll():
                    fetched = await self._consumer.getmany(*asked, timeout_ms=POLL_MS, max_records=max(room, 1))
            except (KafkaError, TimeoutError) as problem:
                log.warning("poll failed", group=self._group, error=type(problem).__name__)
                failed = True
                self._alone = len(self._consumer.assignment())
                await asyncio.sleep(0.5)
                continue
            for tp, records in fetched.items():
                self._handed_out[tp] = records[-1].offset + 1
                self._listener.deliver(received(self._names.inward_partition(tp), records))

    def _next_asked(self) -> tuple[BrokerPartition, ...]:
        """Return whom to poll: all, but after a failure each by itself for one round, for a damaged one fails every poll
        that it is part of. The turn goes on from round to round, so that the damaged one is not always the first.
        """
        assigned = sorted(self._consumer.assignment())
        if not self._alone or not assigned:
            return ()
        self._alone -= 1
        self._turn += 1
        return (assigned[self._turn % len(assigned)],)

    async def _go_back(self) -> None:
        """Read on after what was handed out: the client keeps nothing of what a failed poll had taken."""
        for tp in self._consumer.assignment():
            offset = self._handed_out.get(tp)
            if offset is None:
                offset = await self._consumer.committed(tp)
            if offset is None:
                await self._consumer.seek_to_beginning(tp)
            else:
                self._consumer.seek(tp, offset)

    def on_partitions_revoked(self, revoked: Iterable[BrokerPartition]) -> None:
        """Pass it on; returns at once."""
        self._membership.revoked()
        self._pass_on(self._listener.revoked, revoked)

    def on_partitions_assigned(self, assigned: Iterable[BrokerPartition]) -> None:
        """Pass it on; returns at once."""
        self._membership.assigned()
        self._handed_out.clear()
        self._assigned = self._pass_on(self._listener.assigned, assigned)

    def _pass_on(
        self, told: Callable[[frozenset[TopicPartition]], None], tps: Iterable[BrokerPartition]
    ) -> frozenset[TopicPartition]:
        """Tell the listener; the client would only log what it raises."""
        names = frozenset(self._names.inward_partition(tp) for tp in tps)
        try:
            told(names)
        except Exception as problem:  # noqa: BLE001 - the loop: carried to run(), which raises it
            self._failure = self._failure or problem
        return names
