"""Reading topics without a group: from the log start to the high watermark, then on.

For whoever rebuilds a view from a topic (fences, tree heads, the relay's cursor) or subscribes to one (SDK, command
line). Always `read_committed`. "To the end" means the high watermark, uncommitted records included: a transaction that
is still open there is waited for, so nothing that was acknowledged before is missed. Where the log no longer holds the
wanted offset (retention) reading goes on at the log start, which is logged: a view is at-least-once, and older records
of a key are superseded by newer ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as BrokerPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from flux_common.kafka.admin import Admin
from flux_common.kafka.errors import unavailable
from flux_common.kafka.names import Names
from flux_common.kafka.records import received
from flux_common.kafka.starting import stopped, unless
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Unavailable
from flux_common.kernel.positions import Received, TopicPartition
from flux_common.observability.logging import get_logger
from flux_common.settings import KafkaSettings

log = get_logger(__name__)

POLL_MS: Final = 200
RECORDS_MAX: Final = 1_000
OPEN_SECONDS: Final = 30.0

Start = Literal["beginning", "end"] | Mapping[TopicPartition, int]


async def hear_topic(
    settings: KafkaSettings,
    topic: str,
    hear: Callable[[Sequence[Received]], None],
    stopping: asyncio.Event,
    *,
    at_end: Callable[[], None] = lambda: None,
) -> None:
    """Give `hear` all records of a topic, from the log start and on, until `stopping`; an outage only delays it.

    `at_end` is called when everything is heard that there was at the beginning. A broker that is silent may keep any step
    waiting, but nobody from stopping.
    """
    await unless(stopping, _hear_for_ever(settings, topic, hear, at_end))


async def _hear_for_ever(
    settings: KafkaSettings, topic: str, hear: Callable[[Sequence[Received]], None], at_end: Callable[[], None]
) -> None:
    goes_on: dict[TopicPartition, int] = {}
    while True:
        follower = TopicFollower(settings, [topic], start=goes_on)
        try:
            await follower.open()
            async for records in follower.to_end():
                hear(records)
                goes_on |= _behind(records)
            at_end()
            async for records in follower.follow():
                hear(records)
                goes_on |= _behind(records)
        except Unavailable as problem:
            log.warning("topic is not heard", topic=topic, code=problem.code, error=problem.message)
            await asyncio.sleep(problem.retry_in)
        finally:
            await follower.close()


def _behind(records: Sequence[Received]) -> dict[TopicPartition, int]:
    return {record.position.tp: record.position.offset + 1 for record in records[-1:]}


class TopicFollower:
    """Follows all Kafka partitions of `topics`, or exactly those that `start` maps to an offset.

    Use: `open`, then `to_end` and `follow` as often as wanted, by one task at a time, then `close`.
    """

    def __init__(
        self, settings: KafkaSettings, topics: Iterable[str] = (), *, start: Start = "beginning",
        admin: Admin | None = None,
    ) -> None:  # fmt: skip
        self._settings, self._topics, self._start = settings, sorted(topics), start
        self._names = Names(settings.topic_prefix)
        self._admin = admin or Admin.of(settings)
        self._consumer: Any = None
        self._tps: list[TopicPartition] = []

    async def open(self) -> None:
        """Connect and stand where reading is to begin.

        Raises:
            Unavailable: Kafka does not answer, or a topic is missing (TOPIC_MISSING).
        """
        starts = await self._starts()
        consumer = AIOKafkaConsumer(
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            **self._settings.aiokafka_options(),
        )
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await consumer.start()
            await asyncio.sleep(0)  # stopped before its own tasks began, it would cancel whoever stops it
            consumer.assign([self._names.outward_partition(tp) for tp in starts])
            for tp, offset in starts.items():
                consumer.seek(self._names.outward_partition(tp), offset)
        except (KafkaError, TimeoutError) as problem:
            await stopped(consumer)
            raise unavailable(problem, "connect a follower") from problem
        self._consumer, self._tps = consumer, sorted(starts)

    async def close(self) -> None:
        """Disconnect; safe at any time."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stopped(consumer)

    async def positions(self) -> dict[TopicPartition, int]:
        """Return where reading goes on, per Kafka partition."""
        return {tp: await self._consumer.position(self._names.outward_partition(tp)) for tp in self._tps}

    async def to_end(self) -> AsyncIterator[Sequence[Received]]:
        """Yield what there is up to the high watermarks of now, in batches of one Kafka partition each.

        It waits for transactions that are open before these; the caller's time-out bounds that. Raises Unavailable.
        """
        ends = {tp: facts.log_end for tp, facts in (await self._admin.logs(self._tps)).items()}
        while any(offset < ends.get(tp, 0) for tp, offset in (await self.positions()).items()):
            for records in await self._poll():
                yield records

    async def follow(self) -> AsyncIterator[Sequence[Received]]:
        """Yield batches of one Kafka partition each, for ever; after 200 ms without records an empty one."""
        while True:
            batches = await self._poll()
            for records in batches:
                yield records
            if not batches:
                yield ()

    async def _poll(self) -> list[list[Received]]:
        before = await self.positions()
        try:
            fetched = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=RECORDS_MAX)
        except OffsetOutOfRangeError as problem:
            await self._begin_anew(problem.args[0])
            return []
        except KafkaError as problem:
            for tp, offset in before.items():  # what the failed poll had fetched is gone, its positions are not
                self._consumer.seek(self._names.outward_partition(tp), offset)
            raise unavailable(problem, "poll") from problem
        return [received(self._names.inward_partition(tp), records) for tp, records in fetched.items()]

    async def _starts(self) -> dict[TopicPartition, int]:
        if isinstance(self._start, Mapping) and not self._topics:
            return dict(self._start)
        facts = await self._admin.describe(self._topics)
        missing = set(self._topics) - set(facts)
        if missing:
            raise Unavailable(Code.TOPIC_MISSING, f"Missing or forbidden topics: {', '.join(sorted(missing))}")
        tps = [TopicPartition(name, n) for name in self._topics for n in range(facts[name].kafka_partitions)]
        logs = await self._admin.logs(tps)
        wanted = self._start if isinstance(self._start, Mapping) else {}
        return {
            tp: wanted.get(tp, known.log_end if self._start == "end" else known.log_start) for tp, known in logs.items()
        }

    async def _begin_anew(self, offsets: Mapping[BrokerPartition, int]) -> None:
        tps = [self._names.inward_partition(tp) for tp in offsets]
        for tp, facts in (await self._admin.logs(tps)).items():
            log.warning("offset is gone, reading from the log start", lane=str(tp), log_start=facts.log_start)
            self._consumer.seek(self._names.outward_partition(tp), facts.log_start)
