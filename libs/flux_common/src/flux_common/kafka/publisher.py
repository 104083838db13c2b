"""Publishing: events on their own, and a shard's outbox rows together with their cursor.

`IdempotentPublisher` is at-least-once: after an error the caller sends again, and consumers know an event by its
`ce_id`. `TransactionalPublisher` is the relay's way into Kafka (postgres room, `RelayTransport`): rows and the shard's
cursor are one Kafka transaction, so a `read_committed` reader sees each row once, and the last committed cursor is the
truth about what was published. Its `transactional_id` is the shard's own and fixed: opening it fences the predecessor
and settles what that left open, and only then is the cursor read.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from flux_common.contracts.catalogue import RELAY_CURSOR, RELAY_CURSORS, RELAY_SERVICES, relay_ids
from flux_common.contracts.envelope import Outgoing, headers_for
from flux_common.kafka.admin import Admin, TopicFacts
from flux_common.kafka.errors import PublishRefused, unavailable
from flux_common.kafka.follow import TopicFollower
from flux_common.kafka.names import Names
from flux_common.kafka.producing import PRODUCER_ERRORS, discard, judged, new_producer, refuse_oversized, send_all
from flux_common.kernel.clock import Clock
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import FluxError
from flux_common.kernel.ids import SHARDS, SYSTEM_AGENCY, derived_id
from flux_common.kernel.positions import TopicPartition
from flux_common.observability.logging import get_logger
from flux_common.settings import KafkaSettings

log = get_logger(__name__)

SEND_SECONDS: Final = 30.0
OPEN_SECONDS: Final = 30.0
PUBLISH_SECONDS: Final = 12.0  # below the transaction's own time-out, so that we know first
TRANSACTION_TIMEOUT_MS: Final = 15_000
METADATA_LAG_SECONDS: Final = 2.0
CURSOR_TAIL: Final = 1_000  # offsets before the end to look for the last cursor in: never compacted

Refusal = Callable[[int, str, str], FluxError]


class IdempotentPublisher:
    """Sends events and knows that they are written. May be used by many tasks at once."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._names = Names(settings.topic_prefix)
        self._producer: AIOKafkaProducer | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Connect. `send` does so by itself; a service calls it to know at start. Raises Unavailable."""
        await self._ready()

    async def send(self, events: Sequence[Outgoing]) -> None:
        """Write events, in order per key; returns when all replicas in sync have them all.

        Raises:
            PublishRefused: the broker will never take one of them (it is an `Unavailable`, too).
            Unavailable: try again; some of the events may have been written.
        """
        refuse_oversized(events)
        producer = await self._ready()
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await send_all(producer, self._names, events)
        except TimeoutError as problem:
            await self._give_up(producer)
            raise unavailable(problem, "publish") from problem
        except asyncio.CancelledError:
            raise  # the caller's end says nothing about the producer, which others are using
        except BaseException:
            await self._give_up(producer)
            raise

    async def close(self) -> None:
        """Disconnect; what was sent has been awaited by whoever sent it."""
        if self._producer is not None:
            await self._give_up(self._producer)

    async def _ready(self) -> AIOKafkaProducer:
        async with self._opening:
            if self._producer is None:
                self._producer = await _started(new_producer(self._settings), OPEN_SECONDS)
            return self._producer

    async def _give_up(self, producer: AIOKafkaProducer) -> None:
        if self._producer is producer:
            self._producer = None
        await discard(producer)


class TransactionalPublisher:
    """One shard's way into Kafka.

    After any error it must be opened again. `refused` makes the exception for an event that can never be written; it
    gets the event's index, a code and a message.
    """

    def __init__(
        self, settings: KafkaSettings, service: str, shard: int, clock: Clock, *, refused: Refusal = PublishRefused,
        transaction_timeout_ms: int = TRANSACTION_TIMEOUT_MS,
    ) -> None:  # fmt: skip
        if service not in RELAY_SERVICES or not 0 <= shard < SHARDS or transaction_timeout_ms > TRANSACTION_TIMEOUT_MS:
            raise ValueError(f"no relay {service}/{shard} with {transaction_timeout_ms} ms")
        self._settings, self._clock, self._refused = settings, clock, refused
        self._timeout_ms = transaction_timeout_ms
        self._names = Names(settings.topic_prefix)
        self._admin = Admin.of(settings)
        self._id = f"{relay_ids(service)}{shard}"
        self._key = f"{service}/{shard}"
        self._cursors = TopicPartition(RELAY_CURSORS.name, SHARDS * RELAY_SERVICES.index(service) + shard)
        self._producer: AIOKafkaProducer | None = None
        self._known: dict[str, int] = {}

    async def open(self) -> int | None:
        """Fence the predecessor and return the shard's last cursor; None if there never was one.

        Raises:
            Unavailable: Kafka did not answer, or something else holds the cursors' Kafka partition open.
        """
        await self.close()
        self._known.clear()
        producer = new_producer(
            self._settings,
            transactional_id=self._names.outward(self._id),
            transaction_timeout_ms=self._timeout_ms,
        )
        self._producer = await _started(producer, OPEN_SECONDS)
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                return await self._last_cursor()
        except TimeoutError as problem:
            raise unavailable(problem, "read the relay's cursor") from problem

    async def publish(self, events: Sequence[Outgoing], cursor: int) -> None:
        """Publish events and `cursor` in one transaction; when it returns, both are committed.

        Raises:
            the `refused` exception: one event can never be written; nothing was committed.
            Fenced: another relay of this shard was opened.
            Unavailable: unknown whether it was committed; only `open` tells.
        """
        if self._producer is None:
            raise unavailable(RuntimeError("not open"), "publish")
        try:
            refuse_oversized(events)
            await self._learn_topics(events)
            async with asyncio.timeout(PUBLISH_SECONDS):
                await self._transact(self._producer, [*events, self._cursor_event(cursor)])
        except PublishRefused as problem:
            await self.close()
            raise self._refused(problem.index, problem.code, problem.message) from problem
        except PRODUCER_ERRORS as problem:
            await self.close()
            raise judged([problem], ()) from problem
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let go of the producer; a transaction that is open is settled by the next `open`, here or elsewhere."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await discard(producer)

    async def _transact(self, producer: AIOKafkaProducer, events: Sequence[Outgoing]) -> None:
        await producer.begin_transaction()
        await send_all(producer, self._names, events)  # it awaits every future: a commit would not care
        await producer.commit_transaction()

    async def _learn_topics(self, events: Sequence[Outgoing]) -> None:
        """Refuse events of topics that are not there, before a send waits for them in vain."""
        unknown = {event.topic for event in events} - set(self._known)
        if unknown:
            present = await self._present(sorted(unknown))
            self._known |= {name: facts.kafka_partitions for name, facts in present.items()}
        for index, event in enumerate(events):
            if (event.kafka_partition or 0) >= self._known.get(event.topic, 0):
                raise PublishRefused(index, Code.TOPIC_MISSING, f"{event.topic} is missing, forbidden or too small")

    async def _present(self, topics: Sequence[str]) -> dict[str, TopicFacts]:
        """Describe topics; one that was created just now may be unknown to this broker for a moment."""
        deadline = self._clock.monotonic() + METADATA_LAG_SECONDS
        while True:
            present = await self._admin.describe(topics)
            if len(present) == len(topics) or self._clock.monotonic() >= deadline:
                return present
            await asyncio.sleep(0.2)

    def _cursor_event(self, cursor: int) -> Outgoing:
        event_id = str(derived_id([RELAY_CURSOR.ce_type, self._key, cursor]))
        headers = headers_for(RELAY_CURSOR, event_id=event_id, source=f"flux/{self._key}", at=self._clock.now())
        value = json.dumps({"cursor": cursor}, separators=(",", ":")).encode()
        return Outgoing(
            self._cursors.topic, self._key, event_id, headers, value, SYSTEM_AGENCY, self._cursors.kafka_partition
        )

    async def _last_cursor(self) -> int | None:
        """Return the cursor of the last committed transaction: near the end, or else from the start."""
        logs = await self._admin.logs([self._cursors])
        if self._cursors not in logs:
            raise unavailable(RuntimeError("missing"), f"find topic {self._cursors.topic}; run the topics job")
        facts = logs[self._cursors]
        near = max(facts.log_start, facts.log_end - CURSOR_TAIL)
        found = await self._cursor_from(near)
        if found is None and near > facts.log_start:
            found = await self._cursor_from(facts.log_start)
        return found

    async def _cursor_from(self, offset: int) -> int | None:
        last: int | None = None
        follower = TopicFollower(self._settings, start={self._cursors: offset}, admin=self._admin)
        try:
            await follower.open()
            async for records in follower.to_end():
                for record in records:
                    if record.key == self._key.encode() and record.value is not None:
                        last = int(json.loads(record.value)["cursor"])
        finally:
            await follower.close()
        return last


async def _started(producer: AIOKafkaProducer, timeout: float) -> Any:
    """Start a producer within `timeout` seconds; raises Unavailable, and then nothing is left of it."""
    try:
        async with asyncio.timeout(timeout):
            await producer.start()
    except PRODUCER_ERRORS as problem:
        await discard(producer)
        raise unavailable(problem, "connect a producer") from problem
    except BaseException:
        await discard(producer)
        raise
    return producer
