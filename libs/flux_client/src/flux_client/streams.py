"""Reading one of an agency's topics as events: without a group, or as a member of one.

Always `read_committed`. An event whose `ce_id` was seen lately is not given again: decided twice, or published twice
after a restored backup, it is one event. Without a group, reading begins where the caller says and nothing is kept.
With a group, Kafka keeps the place: an event counts as handled, and its offset is committed, when the next one is asked
for; after a crash the last ones come again (at-least-once), so whoever acts on them keys the act by `event_id`.
Failure: `Unavailable` is raised to the caller, and reading may simply go on. What cannot be read is skipped with a
warning (events.py).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

from flux_client.events import ReceivedEvent, read_event
from flux_common.kafka.follow import Start, TopicFollower
from flux_common.kafka.work import WorkConsumer
from flux_common.kernel.clock import Clock
from flux_common.kernel.errors import InvalidMessage
from flux_common.kernel.positions import Position, Received, TopicPartition, next_offset
from flux_common.observability.logging import get_logger
from flux_common.settings import KafkaSettings

REMEMBERED_MAX: Final = 10_000
WAITING_MAX: Final = 500
TICK_SECONDS: Final = 0.2

log = get_logger(__name__)


class Source(Protocol):
    """Where records come from."""

    async def open(self) -> None:
        """Stand where reading is to begin. Raises Unavailable."""
        ...

    async def poll(self) -> Sequence[Received]:
        """Return the next records, or none after about 200 ms. Raises Unavailable."""
        ...

    async def handled(self, position: Position) -> None:
        """Hear that everything up to `position` of its Kafka partition was handled."""
        ...

    async def close(self) -> None:
        """Disconnect; safe at any time."""
        ...


class EventStream:
    """The events of one topic, each once. An async iterator that never ends, and an async context manager."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._opened = False
        self._waiting: deque[ReceivedEvent] = deque()
        self._given: ReceivedEvent | None = None
        self._seen: OrderedDict[str, None] = OrderedDict()

    async def open(self) -> None:
        """Stand where reading is to begin; what is written from now on will be read. Raises Unavailable."""
        if not self._opened:
            await self._source.open()
            self._opened = True

    async def poll(self) -> ReceivedEvent | None:
        """Return the next event, or None when there is none within about 200 ms. Raises Unavailable."""
        await self.open()
        if self._given is not None:
            await self._source.handled(self._given.position)
            self._given = None
        if not self._waiting:
            await self._fill()
        self._given = self._waiting.popleft() if self._waiting else None
        return self._given

    async def close(self) -> None:
        """Disconnect; safe at any time. The event given last is not yet handled."""
        self._opened = False
        await self._source.close()

    def __aiter__(self) -> AsyncIterator[ReceivedEvent]:
        return self

    async def __anext__(self) -> ReceivedEvent:
        while True:
            event = await self.poll()
            if event is not None:
                return event

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _fill(self) -> None:
        records = await self._source.poll()
        self._waiting.extend(filter(None, map(self._read, records)))
        if records and not self._waiting:
            await self._source.handled(records[-1].position)

    def _read(self, record: Received) -> ReceivedEvent | None:
        event = readable(record)
        if event is None or event.event_id in self._seen:
            return None
        self._seen[event.event_id] = None
        if len(self._seen) > REMEMBERED_MAX:
            self._seen.popitem(last=False)
        return event


def readable(record: Received) -> ReceivedEvent | None:
    """Return the event that a record is; None, with a warning, if it cannot be read."""
    try:
        return read_event(record)
    except InvalidMessage as problem:
        log.warning("record skipped", position=str(record.position), code=problem.code)
        return None


async def present(settings: KafkaSettings, topic: str, start: Start = "beginning") -> AsyncIterator[ReceivedEvent]:
    """Yield the events of a topic up to the high watermarks of now, repeated ones included. Raises Unavailable."""
    source = FollowerSource(settings, topic, start)
    try:
        await source.open()
        async for records in source.to_end():
            for event in filter(None, map(readable, records)):
                yield event
    finally:
        await source.close()


class FollowerSource:
    """Records of a topic without a group."""

    def __init__(self, settings: KafkaSettings, topic: str, start: Start) -> None:
        topics = () if isinstance(start, Mapping) else (topic,)
        self._follower = TopicFollower(settings, topics, start=start)
        self._batches: AsyncIterator[Sequence[Received]] | None = None

    async def open(self) -> None:
        """Stand where reading is to begin. Raises Unavailable."""
        await self._follower.open()

    async def poll(self) -> Sequence[Received]:
        """Return the next records of one Kafka partition, or none after about 200 ms. Raises Unavailable."""
        self._batches = self._batches or self._follower.follow()
        try:
            return await anext(self._batches)
        except BaseException:
            self._batches = None  # what raised is over; the follower itself knows where it stands
            raise

    async def to_end(self) -> AsyncIterator[Sequence[Received]]:
        """Yield what there is up to the high watermarks of now. Raises Unavailable."""
        async for batch in self._follower.to_end():
            yield batch

    async def handled(self, position: Position) -> None:
        """Nothing: without a group the place is the caller's."""

    async def close(self) -> None:
        """Disconnect; safe at any time."""
        self._batches = None
        await self._follower.close()


@dataclass(slots=True)
class GroupSource:
    """Records of a topic for one member of a group (also the listener of its `WorkConsumer`)."""

    settings: KafkaSettings
    topic: str
    group: str
    clock: Clock
    _waiting: deque[Received] = field(default_factory=deque)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _consumer: WorkConsumer | None = None
    _running: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to join the group; records come once Kafka has assigned some."""
        self._stopping.clear()
        self._consumer = WorkConsumer(
            self.settings, group=self.group, topic=self.topic, listener=self, clock=self.clock
        )
        self._running = asyncio.create_task(self._consumer.run(self._stopping))

    async def poll(self) -> Sequence[Received]:
        """Return one record, or none after about 200 ms; raises what ended the consumer."""
        if self._running is not None and self._running.done():
            self._running.result()
        if not self._waiting:
            self._arrived.clear()
            try:
                async with asyncio.timeout(TICK_SECONDS):
                    await self._arrived.wait()
            except TimeoutError:
                return ()
        return (self._waiting.popleft(),) if self._waiting else ()

    async def handled(self, position: Position) -> None:
        """Commit the offset after `position`; one that cannot be committed costs a redelivery."""
        if self._consumer is not None:
            await self._consumer.commit({position.tp: next_offset(position)})

    async def close(self) -> None:
        """Leave the group; safe at any time."""
        self._stopping.set()
        running, self._running, self._consumer = self._running, None, None
        if running is not None:
            await running
        self._waiting.clear()

    def room(self) -> int:
        """Return how many more records may be handed over."""
        return max(WAITING_MAX - len(self._waiting), 0)

    def deliver(self, records: Sequence[Received]) -> None:
        """Keep records until they are asked for."""
        self._waiting.extend(records)
        self._arrived.set()

    def assigned(self, tps: frozenset[TopicPartition]) -> None:
        """Drop everything that waits: what is ours still comes again from the committed offset."""
        self._waiting.clear()

    def revoked(self, tps: frozenset[TopicPartition]) -> None:
        """Nothing: `assigned` says what is left."""
