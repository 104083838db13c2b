"""The broker is killed and comes back: lanes go on where they were, publishers say what they cannot know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import ModuleType
from typing import Any, TypeVar

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from flux_common.contracts.envelope import Outgoing
from flux_common.kafka import producing, publisher
from flux_common.kafka.publisher import IdempotentPublisher, TransactionalPublisher
from flux_common.kernel.clock import SystemClock
from flux_common.kernel.errors import Unavailable
from flux_common.settings import KafkaSettings

T = TypeVar("T")
CURSORS = "flux-internal.relay-cursors.v1"


@pytest.fixture
async def broker(fresh_kafka: Any) -> Any:
    """A broker of this test's own, with topics `t` and the relay's cursors."""
    server = await asyncio.to_thread(fresh_kafka)
    client = AdminClient({"bootstrap.servers": server.bootstrap})
    topics = [NewTopic("t", 2, 1), NewTopic(CURSORS, 12, 1)]
    for future in client.create_topics(topics).values():
        await asyncio.to_thread(future.result, 10)
    return server


def event(number: int) -> Outgoing:
    """Return a numbered event."""
    return Outgoing("t", f"k{number}", f"id-{number}", [], b"%d" % number, "nasa")


async def test_lanes_and_senders_outlive_a_broker_crash(
    broker: Any, store: Any, member: ModuleType, until: Any
) -> None:
    """Across two SIGKILLs of the broker every acknowledged event is applied, and none of its records twice."""
    settings = KafkaSettings(bootstrap=broker.bootstrap, request_timeout_ms=3000, session_timeout_ms=6000)
    async with _running(member.loop_on(store, settings, "t")), _sending(settings) as acknowledged:
        for _ in range(2):
            await asyncio.sleep(1.0)
            await asyncio.to_thread(broker.kill)
            await asyncio.sleep(0.5)
            await asyncio.to_thread(broker.start)
        seen = len(acknowledged)
        await until(_more(acknowledged, seen + 50), 40)
    async with _running(member.loop_on(store, settings, "t")):
        await until(_applied(store, acknowledged), 40)
    twice = await store.pool.fetchval("SELECT count(*) - count(DISTINCT (kafka_partition, record_offset)) FROM effects")

    assert twice == 0


@asynccontextmanager
async def _running(loop: Any) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    task = asyncio.create_task(loop.run(stopping))
    try:
        yield
    finally:
        stopping.set()
        await asyncio.wait_for(task, 60)


@asynccontextmanager
async def _sending(settings: KafkaSettings) -> AsyncIterator[list[int]]:
    acknowledged: list[int] = []
    stop = asyncio.Event()

    async def send() -> None:
        number, sender = 0, IdempotentPublisher(settings)
        while not stop.is_set():
            number += 1
            while not stop.is_set():
                try:
                    await sender.send([event(number)])
                    acknowledged.append(number)
                    break
                except Unavailable:
                    await asyncio.sleep(0.1)
            await asyncio.sleep(0.005)
        await sender.close()

    task = asyncio.create_task(send())
    try:
        yield acknowledged
    finally:
        stop.set()
        await task


def _more(found: list[int], count: int) -> Any:
    async def holds() -> bool:
        return len(found) >= count

    return holds


def _applied(store: Any, numbers: list[int]) -> Any:
    async def holds() -> bool:
        rows = await store.pool.fetch("SELECT DISTINCT value FROM effects")
        return set(numbers) <= {int(row["value"]) for row in rows}

    return holds


async def test_a_loop_waits_for_a_broker_that_is_not_there_yet(
    broker: Any, store: Any, member: ModuleType, until: Any
) -> None:
    """Started before its broker the loop goes on ticking, and reads when the broker comes."""
    ticks: list[None] = []
    await asyncio.to_thread(broker.stop)
    settings = KafkaSettings(bootstrap=broker.bootstrap, request_timeout_ms=1000)
    async with _running(member.loop_on(store, settings, "t", on_tick=lambda: ticks.append(None))):
        await asyncio.sleep(2.5)
        waited = len(ticks)
        await asyncio.to_thread(broker.start)
        sender = IdempotentPublisher(settings)
        await sender.send([event(1)])
        await sender.close()
        await until(_applied(store, [1]), 30)

    assert waited >= 2


async def test_a_stopped_broker_is_an_outage_within_the_deadline(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the broker answers nothing, senders get Unavailable and close in bounded time; afterwards all goes on."""
    settings = KafkaSettings(bootstrap=broker.bootstrap)
    sender = IdempotentPublisher(settings)
    relay = TransactionalPublisher(settings, "audit", 0, SystemClock())
    async with _closed(sender), _closed(relay):
        await sender.send([event(1)])
        await relay.open()
        await relay.publish([event(2)], 2)
        with _impatient(monkeypatch), _paused(broker):
            with pytest.raises(Unavailable):
                await asyncio.wait_for(sender.send([event(3)]), 10)
            with pytest.raises(Unavailable):
                await asyncio.wait_for(relay.publish([event(4)], 4), 10)
        await _at_last(lambda: sender.send([event(5)]))
        cursor = await _at_last(relay.open)

    assert cursor in (2, 4)


async def _at_last(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again while Kafka is not itself yet: a broker that slept too long was fenced, and its leaders are chosen anew."""
    async with asyncio.timeout(30):
        while True:
            with suppress(Unavailable):
                return await ask()
            await asyncio.sleep(0.2)


@asynccontextmanager
async def _closed(sender: Any) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await sender.close()


@contextmanager
def _impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have senders wait for a second at most, as long as this lasts: a busy machine may take longer over what is well."""
    with monkeypatch.context() as patch:
        for module, name in ((publisher, "SEND_SECONDS"), (publisher, "PUBLISH_SECONDS"), (producing, "CLOSE_SECONDS")):
            patch.setattr(module, name, 1.0)
        yield


@contextmanager
def _paused(broker: Any) -> Iterator[None]:
    broker.pause()
    try:
        yield
    finally:
        broker.resume()
