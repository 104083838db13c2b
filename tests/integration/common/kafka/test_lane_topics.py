"""The lane loop and what a topic does to it: markers, open transactions, lost data, topics that come, go and are exchanged."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from structlog.testing import capture_logs

from flux_common.kafka.lanes import LaneLimits
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Overloaded, Unavailable
from flux_common.kernel.positions import LaneBatch
from flux_common.observability.metrics import REGISTRY
from flux_common.settings import KafkaSettings

from .steps import Until, at_least, effects, more_than, send, true


async def test_control_records_are_advanced_over_and_counted(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """Markers and aborted records are passed as control: the lane reaches the log's end, and every offset is accounted."""
    topic = await create_topic("t")
    name = settings.topic(topic)
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap, transactional_id=settings.topic("x")) as producer:
        for n in range(6):
            await producer.begin_transaction()
            await producer.send_and_wait(name, b"%d" % n, partition=0)
            await (producer.abort_transaction() if n in (2, 5) else producer.commit_transaction())

    async def at_end() -> bool:
        row = await store.pool.fetchrow("SELECT next_offset, controls FROM lanes")
        return row is not None and tuple(row) == (12, 8)

    async with running(topic):
        await until(at_end)

    assert [value for _, value, _ in await effects(store)] == ["0", "1", "3", "4"]


async def test_gaps_on_a_topic_that_no_transaction_writes_are_told_wherever_they_are(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """A marker between records, and one behind the last: each is an alert; the lane goes on, and every offset is accounted."""
    topic = await create_topic("gaps")
    await send(settings, topic, [b"a"], transactional_id=settings.topic("x"))
    await send(settings, topic, [b"b"], transactional_id=settings.topic("x"))

    async def at_end() -> bool:
        row = await store.pool.fetchrow("SELECT next_offset, controls FROM lanes")
        return row is not None and tuple(row) == (4, 2)

    before = REGISTRY.get_sample_value("flux_lane_gap_offsets_total") or 0
    with capture_logs() as lines:
        async with running(topic, transactional=False) as loop:
            await until(at_end)
            lanes = loop.lanes()
    told = [line["gaps"] for line in lines if line["event"] == "offsets without records"]

    assert told == [[(1, 1)], [(3, 3)]]
    assert REGISTRY.get_sample_value("flux_lane_gap_offsets_total") == before + 2
    assert [value for _, value, _ in await effects(store)] == ["a", "b"]
    assert len(lanes) == 1


async def test_an_open_transaction_holds_the_lane_and_its_watermark(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """At the end of its log a lane's watermark moves by itself; behind an open transaction it does not."""
    topic = await create_topic("t")
    name = settings.topic(topic)

    async def ticks() -> int:
        return int(await store.pool.fetchval("SELECT max(ticks) FROM lanes") or 0)

    async with running(topic):
        await until(more_than(ticks, 1))
        async with AIOKafkaProducer(
            bootstrap_servers=settings.bootstrap, transactional_id=settings.topic("x")
        ) as producer:
            await producer.begin_transaction()
            await producer.send_and_wait(name, b"open", partition=0)
            await asyncio.sleep(1.0)  # a poll that began before the transaction may still prove the end
            held = await ticks()
            await asyncio.sleep(1.5)
            still = await ticks()
            await producer.commit_transaction()
        await until(at_least(store, 1))
        await until(more_than(ticks, still))

    assert still == held


async def test_lost_data_stops_that_lane_alone(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """A lane whose next offset was deleted stops; the other one goes on, and nothing is skipped."""
    topic = await create_topic("t", 2)
    async with running(topic):
        await send(settings, topic, [b"a"] * 3, 0)
        await send(settings, topic, [b"a"] * 3, 1)
        await until(at_least(store, 6))
    await send(settings, topic, [b"lost"] * 4, 0)
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(settings.topic(topic), 0): RecordsToDelete(before_offset=6)})
    await admin.close()
    async with running(topic) as loop:
        await send(settings, topic, [b"b"], 1)
        await until(at_least(store, 7))
        await until(true(lambda: len(loop.lanes()) == 1))
        lanes = [lane.tp.kafka_partition for lane in loop.lanes()]

    assert lanes == [1]
    assert await store.pool.fetchval("SELECT next_offset FROM lanes WHERE kafka_partition = 0") == 3


async def test_data_lost_while_running_stops_the_lane(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """Out of range in the middle of reading: the store judges, and the lane stops without a record skipped."""
    topic = await create_topic("t")
    held = asyncio.Event()
    apply = store.apply

    async def slow(batch: LaneBatch) -> None:
        if batch.lane.next_offset > 0 and not held.is_set():
            raise Overloaded(Code.DATABASE_UNAVAILABLE, "wait", retry_in=0.2)
        await apply(batch)

    store.apply = slow
    async with running(topic) as loop:
        await send(settings, topic, [b"a"])
        await until(at_least(store, 1))
        await send(settings, topic, [b"b"] * 5)
        await asyncio.sleep(0.5)
        admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap)
        await admin.start()
        await admin.delete_records({TopicPartition(settings.topic(topic), 0): RecordsToDelete(before_offset=6)})
        await admin.close()
        held.set()
        await until(true(lambda: not loop.lanes()))
        await asyncio.sleep(1.0)
        lanes = loop.lanes()

    assert lanes == []
    assert await store.pool.fetchval("SELECT next_offset FROM lanes") == 1


async def test_an_exchanged_topic_is_not_read(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """A topic that was deleted and made again under its name is another topic: its lane stops at Take."""
    topic = await create_topic("t")
    await send(settings, topic, [b"a"])
    async with running(topic):
        await until(at_least(store, 1))
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap)
    await admin.start()
    await admin.delete_topics([settings.topic(topic)])
    await admin.close()
    await asyncio.sleep(0.5)
    await create_topic(topic)
    await send(settings, topic, [b"b", b"c"])
    async with running(topic) as loop:
        await asyncio.sleep(2.0)
        lanes = loop.lanes()

    assert lanes == []
    assert len(await effects(store)) == 1


async def test_a_topic_of_an_unknown_agency_is_not_read_until_it_is_known(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """A matching topic that is not accepted is left alone and does not count as untaken; accepted later, it is read."""
    known = {"flux.a1.t"}
    for name in ("flux.a1.t", "flux.b2.t"):
        await create_topic(name)
        await send(settings, name, [name.encode()])
    limits = LaneLimits(untaken_alert_s=0.0)
    async with running(r"flux\.[a-z0-9]+\.t", accepts=lambda name: name in known, limits=limits) as loop:
        await until(at_least(store, 1))
        await asyncio.sleep(0.5)
        before, untaken = [value for _, value, _ in await effects(store)], loop.untaken()
        known.add("flux.b2.t")
        await until(at_least(store, 2))

    assert before == ["flux.a1.t"]
    assert untaken == []


async def test_a_new_topic_of_the_pattern_is_read_from_its_start(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """Records written to a topic before the loop discovered it are read, too."""
    await create_topic("flux.a1.t")
    async with running(r"flux\.[a-z0-9]+\.t") as loop:
        await until(true(lambda: len(loop.lanes()) == 1))
        await create_topic("flux.b2.t")
        await send(settings, "flux.b2.t", [b"early"])
        await until(at_least(store, 1))

    assert [value for _, value, _ in await effects(store)] == ["early"]


async def test_untaken_lanes_are_told_after_their_time(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """A lane that cannot be taken is reported with its reason, and no longer once it is."""
    topic = await create_topic("t")
    take, down = store.take, True

    async def failing(tp: Any, **facts: Any) -> Any:
        if down:
            raise Unavailable(Code.DATABASE_UNAVAILABLE, "down", retry_in=0.1)
        return await take(tp, **facts)

    store.take = failing
    async with running(topic, limits=LaneLimits(untaken_alert_s=0.5)) as loop:
        await until(true(lambda: bool(loop.untaken())))
        why = [reason for _, reason in loop.untaken()]
        down = False
        await until(true(lambda: bool(loop.lanes())))

    assert why == [Code.DATABASE_UNAVAILABLE]
