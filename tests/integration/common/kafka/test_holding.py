"""What a process holds of its topics, on a real broker: bounded in bytes whatever they unfold to, and no record lost by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from os import urandom
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from flux_common.kafka import holding
from flux_common.kafka.holding import Allowance, Fetched, weight, within
from flux_common.kafka.lanes import LaneLimits
from flux_common.kafka.names import NOWHERE
from flux_common.kafka.owned import Owned, State
from flux_common.kafka.wire import RECORD_BYTES_MAX, Record
from flux_common.kernel import positions
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Overloaded
from flux_common.kernel.positions import Lane, LaneBatch
from flux_common.settings import KafkaSettings

Until = Callable[..., Awaitable[Any]]
BIG = 1_900 * 1024  # just under what a record may be
TP = positions.TopicPartition("t", 0)


async def fill(settings: KafkaSettings, topic: str, partition: int, batches: list[list[bytes]]) -> None:
    """Write batches, each of these values, compressed."""
    options = {"compression_type": "zstd", "max_request_size": 2**26, "max_batch_size": 2**26}
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap, **options) as producer:
        for values in batches:
            batch = producer.create_batch()
            for value in values:
                batch.append(key=None, value=value, timestamp=None)
            await (await producer.send_batch(batch, settings.topic(topic), partition=partition))


async def settled(measure: Callable[[], int]) -> int:
    """Return what `measure` says when it has stopped growing."""
    before, now = -1, measure()
    while now == 0 or now != before:
        await asyncio.sleep(0.5)
        before, now = now, measure()
    return now


async def test_batches_just_under_the_bound_are_held_within_the_loops(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """180 MiB in some kilobytes, for three lanes that are stuck: a fraction waits, and later each record is applied once."""
    topic = await create_topic("t", 3)
    values = [b"%03d" % n + b"x" * BIG for n in range(32)]
    for partition in range(3):
        await fill(settings, topic, partition, [values[n : n + 8] for n in range(0, 32, 8)])
    apply, stuck, taken = store.apply, asyncio.Event(), dict[int, int]()

    async def holding_on(batch: LaneBatch) -> None:
        taken[batch.lane.tp.kafka_partition] = sum(len(record.value or b"") for record in batch.records)
        await stuck.wait()
        small = [replace(record, value=(record.value or b"")[:3]) for record in batch.records]
        await apply(replace(batch, records=small))

    store.apply = holding_on
    async with running(topic, limits=LaneLimits()) as loop:
        buffers = lambda: sum(len(r.value) for o in loop._owned.values() for r in o.buffer)  # noqa: E731
        waiting, working = await settled(buffers), sum(taken.values())
        stuck.set()
        await until(lambda: store.pool.fetchval("SELECT count(*) = 96 FROM effects"))
    rows = await store.pool.fetch("SELECT kafka_partition, record_offset, value FROM effects ORDER BY 1, 2")

    limits = LaneLimits()
    assert waiting <= limits.held_bytes_max + RECORD_BYTES_MAX
    assert working <= 3 * (limits.bytes_max + RECORD_BYTES_MAX)
    assert [tuple(row) for row in rows] == [(p, n, f"{n:03d}") for p in range(3) for n in range(32)]


async def test_lanes_that_hold_all_they_may_leave_room_for_another(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """Eight stuck lanes with twice as much before them as the loop may hold: a record of a neighbour is applied meanwhile."""
    busy, quiet = await create_topic("busy", 8), await create_topic("quiet")
    for partition in range(8):
        await fill(settings, busy, partition, [[b"x" * (BIG // 10)] * 60])
    apply, stuck = store.apply, asyncio.Event()

    async def holding_on(batch: LaneBatch) -> None:
        if batch.lane.tp.topic == busy:
            await stuck.wait()
            raise Overloaded(Code.DATABASE_UNAVAILABLE, "enough", retry_in=30)
        await apply(batch)

    store.apply = holding_on
    async with running(f"{busy}|{quiet}", limits=LaneLimits(topics_take_turns=True)) as loop:
        await settled(lambda: sum(owned.held for owned in loop._owned.values()))
        await fill(settings, quiet, 0, [[b"quiet"]])
        await until(lambda: store.pool.fetchval("SELECT count(*) = 1 FROM effects"))
        held = [owned.held for owned in loop._owned.values() if owned.tp.topic == busy]
        stuck.set()

    assert all(held)
    assert sum(held) <= LaneLimits().held_bytes_max + RECORD_BYTES_MAX


@asynccontextmanager
async def consumer(settings: KafkaSettings, topic: str, partitions: int, **options: Any) -> AsyncIterator[Any]:
    """A plain consumer of the topic's Kafka partitions, from their beginning."""
    tps = [TopicPartition(settings.topic(topic), n) for n in range(partitions)]
    reading = AIOKafkaConsumer(bootstrap_servers=settings.bootstrap, auto_offset_reset="earliest", **options)
    await reading.start()
    await asyncio.sleep(0)  # stopped before its own tasks began, it would cancel whoever stops it
    try:
        reading.assign(tps)
        yield reading
    finally:
        await reading.stop()


async def test_a_poll_takes_what_it_may_and_leaves_the_rest_in_its_place(
    settings: KafkaSettings, create_topic: Any
) -> None:
    """Polls that stop inside batches of every kind: none takes more than its bound and a record, and none is passed over."""
    topic = await create_topic("t", 2)
    values = [b"%d" % n * 2_000 for n in range(1_000)]
    for partition in range(2):
        await fill(settings, topic, partition, [values[:5], values[5:990], values[990:]])
    found: dict[int, list[bytes]] = {0: [], 1: []}
    sizes = []
    async with consumer(settings, topic, 2) as reading:
        while sum(map(len, found.values())) < 2_000:
            with within(Allowance(3_000_000, 1_000_000, {})):
                fetched = await reading.getmany(timeout_ms=200, max_records=300)
            sizes.append(sum(weight(r.key, r.value, r.headers) for records in fetched.values() for r in records))
            for tp, records in fetched.items():
                found[tp.partition] += [record.value for record in records]
            assert [len(records) for records in found.values()] == [
                await reading.position(tp) for tp in sorted(reading.assignment())
            ]

    assert found == {0: values, 1: values}
    assert max(sizes) <= 750_000 + (3_000_000 - 750_000) / 4 + 2 * weight(None, values[-1], [])


async def test_what_is_not_read_yet_holds_further_fetches_back(
    settings: KafkaSettings, create_topic: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight partitions full of bytes that nobody reads: little more than the bound is fetched; later everything is read."""
    topic = await create_topic("t", 8)
    before, mib = Fetched.raw_bytes, 2**20
    monkeypatch.setattr(holding, "RAW_BYTES_MAX", before + mib)
    for partition in range(8):
        await fill(settings, topic, partition, [[urandom(mib - 1_000)], [urandom(1_000)]])
    read = 0
    async with consumer(settings, topic, 8, fetch_max_bytes=mib, max_partition_fetch_bytes=mib) as reading:
        while Fetched.raw_bytes == before:
            await reading.getmany(NOWHERE, timeout_ms=100)
        for _ in range(10):
            await reading.getmany(NOWHERE, timeout_ms=100)
        held = Fetched.raw_bytes - before
        while read < 16:
            read += sum(map(len, (await reading.getmany(timeout_ms=200)).values()))

    assert held <= 3 * mib
    assert Fetched.raw_bytes == before


async def test_a_batch_ends_with_the_record_that_reaches_a_bound(settings: KafkaSettings, create_topic: Any) -> None:
    """By number or by bytes, whichever is reached first; one record is always taken, and what was taken waits no more."""
    topic = await create_topic("t")
    async with consumer(settings, topic, 1) as reading:
        lane = _owned(reading, 10, 10, 90_000, 10, 90_000)
        batches = [_offsets(lane, 2, 10_000), _offsets(lane, 2, 10_000)]
        held = lane.held
        batches += [_offsets(lane, 100, 10**9), _offsets(lane, 100, 10**9)]

    assert batches == [[0, 1], [2], [3, 4], []]
    assert (held, lane.held) == (2 * weight(None, b"", []) + 90_010, 0)


async def test_what_is_forgotten_weighs_nothing(settings: KafkaSettings, create_topic: Any) -> None:
    """A lane that is sought back, left or dropped holds nothing."""
    topic = await create_topic("t")
    async with consumer(settings, topic, 1) as reading:
        back, left, dropped = lanes = [_owned(reading, 5_000) for _ in range(3)]
        back.rewind(0.0)
        left.leave(State.TAKING, "outage", 0.0)
        dropped.drop()

    assert [(lane.held, _offsets(lane, 9, 9)) for lane in lanes] == [(0, [])] * 3


def _owned(reading: Any, *sizes: int) -> Owned:
    """Return the consumer's one lane, taken, with records of these sizes waiting."""
    (broker,) = reading.assignment()
    lane = Owned(reading, broker, TP, 0.0)
    lane.begin(Lane("test", TP, "id", 1, 0), 0.0)
    lane.receive([Record(n, 1, 1, None, bytes(size), []) for n, size in enumerate(sizes)], 0.0)
    return lane


def _offsets(lane: Owned, records_max: int, bytes_max: int) -> list[int]:
    return [record.position.offset for record in lane.next_records(records_max, bytes_max)]
