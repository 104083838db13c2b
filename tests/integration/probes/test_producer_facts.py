"""Facts of aiokafka's producer that publishers and relay rest on. A red probe means that a fact has moved."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import MessageSizeTooLargeError, OutOfOrderSequenceNumber, ProducerFenced


async def test_a_refused_batch_poisons_its_producer(kafka_bootstrap: str, new_topic: Any) -> None:
    """After the broker refused one batch every later send to that Kafka partition fails.

    When red: a producer survives a refusal; closing it after each error (`producing.discard`) may be relaxed.
    """
    topic = await new_topic(max_message_bytes="2000")
    async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, enable_idempotence=True) as producer:
        await producer.send_and_wait(topic, b"good", partition=0)
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send_and_wait(topic, b"x" * 5000, partition=0)
        for _ in range(2):
            with pytest.raises(OutOfOrderSequenceNumber):
                await producer.send_and_wait(topic, b"good", partition=0)


async def test_a_refusal_by_the_client_does_not_poison(kafka_bootstrap: str, new_topic: Any) -> None:
    """What the client itself finds too large never reaches the broker, and the next send works.

    When red: client limits below the topic's are no protection any more; check sizes before `send`.
    """
    topic = await new_topic()
    async with AIOKafkaProducer(
        bootstrap_servers=kafka_bootstrap, enable_idempotence=True, max_request_size=2000
    ) as producer:
        await producer.send_and_wait(topic, b"good", partition=0)
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send_and_wait(topic, b"x" * 5000, partition=0)
        written = await producer.send_and_wait(topic, b"good", partition=0)

    assert written.offset == 1


async def test_a_commit_does_not_care_about_failed_sends(
    kafka_bootstrap: str, new_topic: Any, topic_prefix: str, values_of: Any
) -> None:
    """A transaction commits although a send inside it failed: readers see a part of it.

    When red: the commit fails by itself; awaiting every future before it (`send_all`) is no longer what protects.
    """
    topic = await new_topic(max_message_bytes="2000")
    async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, transactional_id=f"{topic_prefix}x") as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"part", partition=0)
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send_and_wait(topic, b"x" * 5000, partition=0)
        await producer.commit_transaction()

    assert await values_of(topic) == [b"part"]


async def test_a_successor_fences_and_settles(kafka_bootstrap: str, new_topic: Any, topic_prefix: str) -> None:
    """When a producer of the same transactional id has started, the older's open transaction is aborted and settled.

    When red: `TransactionalPublisher.open` may read a cursor that is still open; wait until both offsets are equal.
    """
    topic = await new_topic()
    tp = TopicPartition(topic, 0)
    options = {"bootstrap_servers": kafka_bootstrap, "transactional_id": f"{topic_prefix}x"}
    older, newer = AIOKafkaProducer(**options), AIOKafkaProducer(**options)
    await older.start()
    await older.begin_transaction()
    await older.send_and_wait(topic, b"open", partition=0)
    await newer.start()
    ends = []
    for isolation in ("read_committed", "read_uncommitted"):
        async with AIOKafkaConsumer(bootstrap_servers=kafka_bootstrap, isolation_level=isolation) as consumer:
            ends.append((await consumer.end_offsets([tp]))[tp])
    with pytest.raises(ProducerFenced):
        await older.commit_transaction()
    await older.stop()
    await newer.stop()

    assert ends == [2, 2]
