"""Hostile and foreign batches over a real broker: no producer's bytes stop a lane."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c
from confluent_kafka import Producer

from flux_common.kafka import wire
from flux_common.kernel.codes import Code
from flux_common.settings import KafkaSettings

Until = Callable[..., Awaitable[Any]]


async def effects(store: Any) -> list[tuple[int, str, str]]:
    """Return what was done, by offset."""
    rows = await store.pool.fetch("SELECT record_offset, left(value, 9), how FROM effects ORDER BY 1")
    return [tuple(row) for row in rows]


def count(store: Any, wanted: int) -> Callable[[], Awaitable[bool]]:
    """Return the condition that so many effects are there."""

    async def holds() -> bool:
        return bool(await store.pool.fetchval("SELECT count(*) >= $1 FROM effects", wanted))

    return holds


async def test_a_header_name_that_is_not_utf8_stops_no_lane(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """The record reaches the handler like any other, and so do those of its batch and those behind it."""
    topic = await create_topic("t")
    seen: list[tuple[Any, ...]] = []
    apply = store.apply

    async def noting(batch: Any) -> None:
        seen.extend(record.headers for record in batch.records)
        await apply(batch)

    store.apply = noting
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap) as producer:
        name = settings.topic(topic)
        await producer.send_and_wait(name, b"before", partition=0)
        await (await producer.send_batch(_hostile(producer), name, partition=0))
        await producer.send_and_wait(name, b"after", partition=0)
    async with running(topic):
        await until(count(store, 4))

    assert [value for _, value, _ in await effects(store)] == ["before", "good", "hostile", "after"]
    assert seen[2] == (("\\xff\\xfe\\x80\x00", b"x"),)


def _hostile(producer: AIOKafkaProducer) -> Any:
    """Return a batch of two whose second record has a header name that is not UTF-8, with a CRC that fits."""
    batch = producer.create_batch()
    batch.append(key=None, value=b"good", timestamp=None, headers=[("ok", b"1")])
    batch.append(key=None, value=b"hostile", timestamp=None, headers=[("AAAA", b"x")])
    batch.close()
    data = bytearray(batch._build().replace(b"AAAA", b"\xff\xfe\x80\x00"))
    struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])))
    batch._buffer = data
    return batch


async def test_a_batch_that_unfolds_without_bound_is_refused(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """Forty MiB in some kilobytes: its record is refused by itself, the lane goes on."""
    topic = await create_topic("t")
    async with AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap, compression_type="gzip",
        max_request_size=64 * 2**20, max_batch_size=64 * 2**20,
    ) as producer:  # fmt: skip
        for value in (b"before", b"x" * (40 * 2**20), b"after"):
            await producer.send_and_wait(settings.topic(topic), value, partition=0)
    async with running(topic):
        await until(count(store, 3))

    assert await effects(store) == [(0, "before", "applied"), (1, "", Code.TOO_LARGE), (2, "after", "applied")]


async def test_records_that_nobody_can_read_are_refused_together(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """A thousand records in a batch that unfolds without bound cost a handful of transactions, not a thousand."""
    topic = await create_topic("t")
    refuse, calls = store.refuse, []

    async def counted(batch: Any, problem: Any) -> None:
        calls.append(len(batch.records))
        await refuse(batch, problem)

    store.refuse = counted
    async with AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap, compression_type="gzip",
        max_request_size=64 * 2**20, max_batch_size=64 * 2**20,
    ) as producer:  # fmt: skip
        batch = producer.create_batch()
        for value in (b"x" * (40 * 2**20), *[b""] * 999):
            batch.append(key=None, value=value, timestamp=None)
        await (await producer.send_batch(batch, settings.topic(topic), partition=0))
        await producer.send_and_wait(settings.topic(topic), b"after", partition=0)
    async with running(topic):
        await until(count(store, 1_001))

    assert sum(calls) == 1_000
    assert len(calls) <= 12
    assert (await effects(store))[-1] == (1_000, "after", "applied")


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_every_codec_of_other_clients_is_read(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until, codec: str
) -> None:
    """What librdkafka writes in any codec reaches the handler."""
    topic = await create_topic("t")
    producer = Producer({"bootstrap.servers": settings.bootstrap, "compression.type": codec})
    for n in range(50):
        producer.produce(settings.topic(topic), b"%d" % n * 100, partition=0)
    await asyncio.to_thread(producer.flush, 10)
    async with running(topic):
        await until(count(store, 50))

    assert await store.pool.fetchval("SELECT count(DISTINCT value) FROM effects") == 50


async def test_bytes_that_the_client_cannot_read_stop_their_own_lane_alone(
    settings: KafkaSettings,
    create_topic: Any,
    store: Any,
    running: Any,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever reading one partition raises, the other is read; and the first, too, once its bytes can be read."""
    topic = await create_topic("t", 2)
    reading = wire.Batch.__iter__

    def cursed(batch: wire.Batch) -> Any:
        if b"cursed" in bytes(batch._data):
            raise ZeroDivisionError
        return reading(batch)

    monkeypatch.setattr(wire.Batch, "__iter__", cursed)
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap) as producer:
        name = settings.topic(topic)
        await producer.send_and_wait(name, b"cursed", partition=0)
        async with running(topic):
            for n in range(40):
                await producer.send_and_wait(name, b"%d" % n, partition=1)
                await asyncio.sleep(0.05)
            await until(count(store, 40))
            before = {value for _, value, _ in await effects(store)}
            monkeypatch.undo()
            await until(count(store, 41))
    twice = await store.pool.fetchval("SELECT count(*) - count(DISTINCT value) FROM effects")

    assert before == {str(n) for n in range(40)}
    assert twice == 0
