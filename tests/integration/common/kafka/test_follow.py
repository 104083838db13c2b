"""Following topics without a group: all that is committed up to the end, then what comes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as BrokerPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from flux_common.kafka.follow import TopicFollower
from flux_common.kernel.errors import Unavailable
from flux_common.kernel.positions import Received, TopicPartition
from flux_common.settings import KafkaSettings


async def to_end(follower: TopicFollower) -> list[Received]:
    """Return all records up to the end of now."""
    return [record async for records in follower.to_end() for record in records]


async def send(settings: KafkaSettings, topic: str, *values: bytes, partition: int = 0) -> None:
    """Write values."""
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap) as producer:
        for value in values:
            await producer.send_and_wait(settings.topic(topic), value, key=b"k", partition=partition)


@pytest.fixture
async def follower_of(settings: KafkaSettings) -> Any:
    """Open followers, closed with the test."""
    made: list[TopicFollower] = []

    async def follow(*topics: str, **options: Any) -> TopicFollower:
        follower = TopicFollower(settings, topics, **options)
        made.append(follower)
        await follower.open()
        return follower

    yield follow
    for follower in made:
        await follower.close()


async def test_reads_to_the_end_and_goes_on(settings: KafkaSettings, create_topic: Any, follower_of: Any) -> None:
    """Everything of all topics and Kafka partitions first; then, from there, what is written later."""
    one, two = await create_topic("one", 2), await create_topic("two")
    await send(settings, one, b"a", partition=0)
    await send(settings, one, b"b", partition=1)
    await send(settings, two, b"c")
    follower = await follower_of(one, two)
    first = await to_end(follower)
    await send(settings, two, b"d")
    later: list[Received] = []
    async for records in follower.follow():
        later += records
        if later:
            break

    assert sorted((str(r.position), r.value) for r in first) == [
        ("one/0@0", b"a"),
        ("one/1@0", b"b"),
        ("two/0@0", b"c"),
    ]
    assert [(str(r.position), r.value) for r in later] == [("two/0@1", b"d")]
    assert (await follower.positions())[TopicPartition("two", 0)] == 2


async def test_an_empty_topic_is_read_at_once(create_topic: Any, follower_of: Any) -> None:
    """The end of an empty topic is its start."""
    follower = await follower_of(await create_topic("t", 3))

    assert await asyncio.wait_for(to_end(follower), 10) == []


async def test_only_committed_records_and_waits_for_open_transactions(
    settings: KafkaSettings, create_topic: Any, follower_of: Any
) -> None:
    """An aborted record is never seen; a transaction open at the end is waited for, so its record is not missed."""
    name = settings.topic(await create_topic("t"))
    follower = await follower_of("t")
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap, transactional_id=settings.topic("x")) as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(name, b"aborted", partition=0)
        await producer.abort_transaction()
        await producer.begin_transaction()
        await producer.send_and_wait(name, b"open", partition=0)
        reading = asyncio.create_task(to_end(follower))
        done, _ = await asyncio.wait([reading], timeout=1.0)
        await producer.commit_transaction()
        found = await asyncio.wait_for(reading, 10)

    assert done == set()
    assert [record.value for record in found] == [b"open"]


async def test_starts_where_it_is_told(settings: KafkaSettings, create_topic: Any, follower_of: Any) -> None:
    """From the end, or from an offset for each Kafka partition."""
    topic = await create_topic("t")
    await send(settings, topic, b"a", b"b", b"c")
    tail = await to_end(await follower_of(topic, start="end"))
    middle = await to_end(await follower_of(start={TopicPartition(topic, 0): 1}))

    assert tail == []
    assert [record.value for record in middle] == [b"b", b"c"]


async def test_goes_on_at_the_log_start_where_its_offset_is_gone(
    settings: KafkaSettings, create_topic: Any, follower_of: Any
) -> None:
    """Retention took what was to be read: reading goes on with what is left."""
    topic = await create_topic("t")
    await send(settings, topic, b"a", b"b", b"c")
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap)
    await admin.start()
    await admin.delete_records({BrokerPartition(settings.topic(topic), 0): RecordsToDelete(before_offset=2)})
    await admin.close()
    follower = await follower_of(start={TopicPartition(topic, 0): 0})

    assert [record.value for record in await asyncio.wait_for(to_end(follower), 20)] == [b"c"]


async def test_a_missing_topic_is_an_outage(follower_of: Any) -> None:
    """Opening a follower of a topic that is not there says so."""
    with pytest.raises(Unavailable, match="absent"):
        await follower_of("absent")
