"""What the lane tests do and wait for: records written to a topic, effects read back, conditions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import AIOKafkaProducer

from flux_common.settings import KafkaSettings

Until = Callable[..., Awaitable[Any]]


async def send(settings: KafkaSettings, topic: str, values: list[bytes], partition: int = 0, **options: Any) -> None:
    """Write values to one Kafka partition; with `transactional_id` in one transaction."""
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap, **options) as producer:
        if options.get("transactional_id"):
            async with producer.transaction():
                for value in values:
                    await producer.send_and_wait(settings.topic(topic), value, partition=partition)
        else:
            for value in values:
                await producer.send(settings.topic(topic), value, partition=partition)


async def effects(store: Any) -> list[tuple[int, str, str]]:
    """Return what was done, by offset."""
    rows = await store.pool.fetch("SELECT record_offset, value, how FROM effects ORDER BY 1")
    return [tuple(row) for row in rows]


def at_least(store: Any, count: int) -> Callable[[], Awaitable[bool]]:
    """Return the condition that so many effects are there."""

    async def holds() -> bool:
        return bool(await store.pool.fetchval("SELECT count(*) >= $1 FROM effects", count))

    return holds


def true(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    """Return a plain condition as one to await."""

    async def holds() -> bool:
        return condition()

    return holds


def more_than(count: Callable[[], Awaitable[int]], floor: int) -> Callable[[], Awaitable[bool]]:
    """Return the condition that a count has passed a floor."""

    async def holds() -> bool:
        return await count() > floor

    return holds
