"""The work consumer on a real Kafka: never more than there is room for, membership kept while work runs, explicit commits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from flux_common.kafka.work import WorkConsumer
from flux_common.kernel.clock import SystemClock
from flux_common.kernel.positions import Received, TopicPartition
from flux_common.settings import KafkaSettings


class Worker:
    """Holds items up to a bound, and remembers what it was told."""

    def __init__(self, bound: int = 3) -> None:
        self.bound = bound
        self.held: list[Received] = []
        self.most = 0
        self.told: list[tuple[str, int]] = []

    def room(self) -> int:
        """Return the free places."""
        return self.bound - len(self.held)

    def deliver(self, records: Sequence[Received]) -> None:
        """Hold items."""
        self.held += records
        self.most = max(self.most, len(self.held))

    def assigned(self, tps: frozenset[TopicPartition]) -> None:
        """Remember."""
        self.told.append(("assigned", len(tps)))

    def revoked(self, tps: frozenset[TopicPartition]) -> None:
        """Remember."""
        self.told.append(("revoked", len(tps)))


@asynccontextmanager
async def working(settings: KafkaSettings, worker: Worker) -> AsyncIterator[WorkConsumer]:
    """Run a consumer of topic `work` inside a block."""
    stopping = asyncio.Event()
    consumer = WorkConsumer(settings, group="work", topic="work", listener=worker, clock=SystemClock())
    task = asyncio.create_task(consumer.run(stopping))
    try:
        yield consumer
    finally:
        stopping.set()
        await asyncio.wait_for(task, 30)


async def send(settings: KafkaSettings, count: int, partitions: int = 1) -> None:
    """Write numbered items."""
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap) as producer:
        for n in range(count):
            await producer.send_and_wait(settings.topic("work"), b"%d" % n, partition=n % partitions)


async def test_hands_out_no_more_than_there_is_room_for(settings: KafkaSettings, create_topic: Any, until: Any) -> None:
    """All items come, in order, and never more than the worker has room for."""
    await create_topic("work")
    await send(settings, 10)
    worker, done = Worker(), []

    async def finish_one() -> bool:
        if worker.held:
            done.append(worker.held.pop(0))
        return len(done) == 10

    async with working(settings, worker):
        await until(finish_one)

    assert [record.value for record in done] == [b"%d" % n for n in range(10)]
    assert worker.most <= 3


async def test_what_was_not_committed_is_handed_out_again(
    settings: KafkaSettings, create_topic: Any, until: Any
) -> None:
    """The next member begins at the offset that was committed, not at what was handed out."""
    await create_topic("work")
    await send(settings, 5)
    first, second = Worker(5), Worker(5)
    tp = TopicPartition("work", 0)
    async with working(settings, first) as consumer:
        await until(_holds(first, 5))
        committed = await consumer.commit({tp: 3})
        foreign = await consumer.commit({TopicPartition("work", 9): 1})
    async with working(settings, second):
        await until(_holds(second, 2))

    assert (committed, foreign) == (True, False)
    assert [record.value for record in second.held] == [b"3", b"4"]


def _holds(worker: Worker, count: int) -> Any:
    async def holds() -> bool:
        return len(worker.held) >= count

    return holds


async def test_the_membership_outlives_long_work(settings: KafkaSettings, create_topic: Any, until: Any) -> None:
    """A full worker stays a member for longer than session and poll interval, and gets the rest when it has room."""
    await create_topic("work")
    await send(settings, 2)
    quick = settings.model_copy(update={"session_timeout_ms": 1500, "max_poll_interval_ms": 1500})
    worker = Worker(1)
    async with working(quick, worker):
        await until(_holds(worker, 1))
        await asyncio.sleep(3.0)
        told = list(worker.told)
        worker.held.clear()
        await until(_holds(worker, 1))

    assert told == [("revoked", 0), ("assigned", 1)]
    assert [record.value for record in worker.held] == [b"1"]


async def test_a_second_member_shares_the_work(settings: KafkaSettings, create_topic: Any, until: Any) -> None:
    """Both hear of the new assignment; together they have all Kafka partitions."""
    await create_topic("work", 4)
    first, second = Worker(), Worker()

    async def shared() -> bool:
        return bool(first.told and second.told and first.told[-1][1] + second.told[-1][1] == 4 and second.told[-1][1])

    async def alone() -> bool:
        return ("assigned", 4) in first.told

    async with working(settings, first):
        await until(alone)
        async with working(settings, second):
            await until(shared)

    assert ("revoked", 4) in first.told
    assert ("assigned", 2) in first.told


async def test_a_listener_that_raises_ends_the_consumer(settings: KafkaSettings, create_topic: Any) -> None:
    """What the listener raises, in a callback or at delivery, leaves `run`."""
    await create_topic("work")
    await send(settings, 1)

    class Broken(Worker):
        def __init__(self, when: str) -> None:
            super().__init__()
            self.when = when

        def assigned(self, tps: frozenset[TopicPartition]) -> None:
            if self.when == "assigned":
                raise ZeroDivisionError

        def deliver(self, records: Sequence[Received]) -> None:
            raise ZeroDivisionError

    for when in ("assigned", "delivered"):
        consumer = WorkConsumer(settings, group=when, topic="work", listener=Broken(when), clock=SystemClock())
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(consumer.run(asyncio.Event()), 20)
