"""A broker that is dead, silent, or holds damaged bytes: what it does to one must not be done to others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined] # re-exported without saying so

from flux_common.contracts.envelope import Outgoing
from flux_common.kafka import producing
from flux_common.kafka.publisher import IdempotentPublisher
from flux_common.kafka.work import WorkConsumer
from flux_common.kernel.clock import SystemClock
from flux_common.kernel.positions import Received, TopicPartition
from flux_common.settings import KafkaSettings


class Worker:
    """Takes whatever comes."""

    def __init__(self) -> None:
        self.held: list[Received] = []

    def room(self) -> int:
        """Return more than there is."""
        return 100

    def deliver(self, records: Sequence[Received]) -> None:
        """Keep them."""
        self.held += records

    def assigned(self, tps: frozenset[TopicPartition]) -> None:
        """Ignore it."""

    def revoked(self, tps: frozenset[TopicPartition]) -> None:
        """Ignore it."""


@pytest.fixture
async def broker(fresh_kafka: Any) -> Any:
    """A broker of this test's own, with a topic `work` of two Kafka partitions."""
    server = await asyncio.to_thread(fresh_kafka)
    client = AdminClient({"bootstrap.servers": server.bootstrap})
    for future in client.create_topics([NewTopic("work", 2, 1)]).values():
        await asyncio.to_thread(future.result, 10)
    return server


async def fill(bootstrap: str, count: int) -> None:
    """Write numbered items to both Kafka partitions."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for n in range(count):
            for partition in (0, 1):
                await producer.send_and_wait("work", b"item %d" % n, partition=partition)


def damage(log: Path) -> None:
    """Flip a bit in the last record of a log."""
    data = bytearray(log.read_bytes())
    at = data.rindex(b"item ")
    data[at] ^= 1
    log.write_bytes(data)


async def test_a_damaged_batch_takes_nothing_from_other_kafka_partitions(broker: Any, until: Any) -> None:
    """Each poll that meets it fails; what the same poll had taken of its neighbour is read again and handed out."""
    await fill(broker.bootstrap, 5)
    await asyncio.to_thread(broker.stop)
    damage(next(broker.folder.glob("data/work-1/*.log")))
    await asyncio.to_thread(broker.start)
    worker, stopping = Worker(), asyncio.Event()
    settings = KafkaSettings(bootstrap=broker.bootstrap, session_timeout_ms=3000)
    consumer = WorkConsumer(settings, group="work", topic="work", listener=worker, clock=SystemClock())
    running = asyncio.create_task(consumer.run(stopping))

    async def all_of_the_neighbour() -> bool:
        return sum(1 for record in worker.held if record.position.tp.kafka_partition == 0) >= 5

    await until(all_of_the_neighbour)
    stopping.set()
    await asyncio.wait_for(running, 30)

    offsets = [record.position.offset for record in worker.held if record.position.tp.kafka_partition == 0]
    assert offsets == [0, 1, 2, 3, 4]


async def test_a_consumer_stops_in_order_though_the_broker_is_dead(broker: Any) -> None:
    """The client cancels whoever stops it then; that is no cancellation of ours."""
    settings = KafkaSettings(bootstrap=broker.bootstrap, session_timeout_ms=3000, request_timeout_ms=3000)
    stopping = asyncio.Event()
    consumer = WorkConsumer(settings, group="work", topic="work", listener=Worker(), clock=SystemClock())
    running = asyncio.create_task(consumer.run(stopping))
    async with asyncio.timeout(30):
        while not consumer.joined:  # noqa: ASYNC110 (the consumer has no event for it)
            await asyncio.sleep(0.05)
    await asyncio.to_thread(broker.kill)
    await asyncio.sleep(0.5)
    stopping.set()
    await asyncio.wait({running}, timeout=60)

    assert running.done()
    assert not running.cancelled()
    assert not consumer.joined


async def test_a_sender_that_is_cancelled_takes_nobody_elses_send_with_it(
    broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The producer is everybody's; while the broker is silent one caller gives up, and another is acknowledged later."""
    monkeypatch.setattr(producing, "CLOSE_SECONDS", 0.2)
    sender = IdempotentPublisher(KafkaSettings(bootstrap=broker.bootstrap))
    await sender.send([Outgoing("work", "k", "id-0", [], b"0", "nasa")])
    await asyncio.to_thread(broker.pause)
    first, second = (
        asyncio.create_task(sender.send([Outgoing("work", "k", f"id-{n}", [], b"%d" % n, "nasa")])) for n in (1, 2)
    )
    await asyncio.sleep(0.2)
    first.cancel()
    await asyncio.sleep(1.0)
    await asyncio.to_thread(broker.resume)
    done = await asyncio.gather(first, second, return_exceptions=True)
    await sender.close()

    assert isinstance(done[0], asyncio.CancelledError)
    assert done[1] is None
