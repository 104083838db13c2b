"""What every probe of the brokers needs: a topic of its own on the session's Kafka."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

CreateTopic = Callable[..., Awaitable[str]]


@pytest.fixture(scope="session")
def database_template() -> str:
    """Probes make their own tables."""
    return "template1"


@pytest.fixture
def new_topic(kafka_bootstrap: str, topic_prefix: str) -> CreateTopic:
    """Create a topic of this test; keywords are topic settings with `_` for `.`."""

    async def create(partitions: int = 1, **config: str) -> str:
        name = f"{topic_prefix}t"
        topic = NewTopic(name, partitions, 1, config={key.replace("_", "."): value for key, value in config.items()})
        client = AdminClient({"bootstrap.servers": kafka_bootstrap})
        for future in client.create_topics([topic]).values():
            await asyncio.to_thread(future.result, 10)
        await asyncio.to_thread(_wait_for_leaders, client, name, partitions)
        return name

    return create


def _wait_for_leaders(client: AdminClient, name: str, partitions: int) -> None:
    """Metadata lags behind creation."""
    known: dict[int, Any] = {}
    while len(known) < partitions or any(partition.leader < 0 for partition in known.values()):
        time.sleep(0.05)
        known = client.list_topics(name, timeout=10).topics[name].partitions


@pytest.fixture
def values_of(kafka_bootstrap: str) -> Callable[..., Awaitable[list[Any]]]:
    """Read the values of Kafka partition 0 up to its end, read_committed."""

    async def read(name: str) -> list[Any]:
        tp, found = TopicPartition(name, 0), []
        async with AIOKafkaConsumer(bootstrap_servers=kafka_bootstrap, isolation_level="read_committed") as consumer:
            consumer.assign([tp])
            await consumer.seek_to_beginning(tp)
            end = (await consumer.end_offsets([tp]))[tp]
            while await consumer.position(tp) < end:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += [record.value for record in records]
        return found

    return read
