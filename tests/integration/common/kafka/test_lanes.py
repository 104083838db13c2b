"""The lane loop on a real Kafka and a real PostgreSQL: each record once, whatever a batch, a lane or a topic does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from flux_common.kafka.lanes import LaneLimits
from flux_common.kafka.owned import Owned
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import InvariantBroken, Overloaded, RunBroken, Unavailable
from flux_common.kernel.positions import LaneBatch
from flux_common.observability.metrics import REGISTRY
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


async def test_applies_each_record_once_and_goes_on_where_it_was(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """A loop applies every record once, in order; its successor goes on at the lane's own offset."""
    topic = await create_topic("t")
    await send(settings, topic, [b"a%d" % n for n in range(500)])
    async with running(topic):
        await until(at_least(store, 500))
    await send(settings, topic, [b"b"])
    async with running(topic):
        await until(at_least(store, 501))

    assert await effects(store) == [(n, f"a{n}", "applied") for n in range(500)] + [(500, "b", "applied")]


async def test_bisects_down_to_the_refused_records(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """Records that a handler refuses are refused alone; all others of their batch are applied."""
    topic = await create_topic("t")
    values = [b"bad" if n in (0, 17, 99) else b"good" for n in range(100)]
    await send(settings, topic, values)
    async with running(topic):
        await until(at_least(store, 100))

    refused = [offset for offset, _, how in await effects(store) if how == Code.JSON_INVALID]
    assert refused == [0, 17, 99]


async def test_run_broken_is_refused_like_an_invalid_record(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """RunBroken of one record reaches `refuse`, with its code."""
    topic = await create_topic("t")
    apply = store.apply

    async def broken(batch: LaneBatch) -> None:
        if any(record.value == b"broken" for record in batch.records):
            raise RunBroken(Code.CHAIN_CORRUPT, "broken")
        await apply(batch)

    store.apply = broken
    await send(settings, topic, [b"x", b"broken", b"y"])
    async with running(topic):
        await until(at_least(store, 3))

    assert [how for _, _, how in await effects(store)] == ["applied", "CHAIN_CORRUPT", "applied"]


@pytest.mark.parametrize("problem", [Unavailable, Overloaded])
async def test_an_outage_advances_nothing_and_hurts_no_other_lane(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until, problem: type[Unavailable]
) -> None:
    """While one lane's batches fail the other's are applied; when it is over nothing is lost or repeated."""
    topic = await create_topic("t", 2)
    apply, failing = store.apply, asyncio.Event()
    failed = 0

    async def outage(batch: LaneBatch) -> None:
        nonlocal failed
        if batch.lane.tp.kafka_partition == 0 and not failing.is_set():
            failed += 1
            raise problem(Code.DATABASE_UNAVAILABLE, "down", retry_in=0.1)
        await apply(batch)

    store.apply = outage
    async with running(topic):
        await send(settings, topic, [b"zero"] * 50, 0)
        await send(settings, topic, [b"one"] * 50, 1)
        await until(at_least(store, 50))
        others = {value for _, value, _ in await effects(store)}
        await until(_true(lambda: failed > 2))
        failing.set()
        await until(at_least(store, 100))

    assert others == {"one"}
    counts = await store.pool.fetchrow("SELECT count(*), count(DISTINCT (kafka_partition, record_offset)) FROM effects")
    assert tuple(counts) == (100, 100)


def _true(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return condition()

    return holds


async def test_a_commit_whose_answer_was_lost_is_settled_by_a_take(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """When a batch was committed and the handler says Unavailable, the lane is taken again and nothing is repeated."""
    topic = await create_topic("t")
    apply = store.apply
    answers = iter([True])

    async def ambiguous(batch: LaneBatch) -> None:
        await apply(batch)
        if next(answers, False):
            raise Unavailable(Code.DATABASE_UNAVAILABLE, "lost at COMMIT", retry_in=0.1)

    store.apply = ambiguous
    await send(settings, topic, [b"a"] * 10)
    async with running(topic):
        await until(at_least(store, 10))
        await send(settings, topic, [b"b"])
        await until(at_least(store, 11))

    assert [offset for offset, _, _ in await effects(store)] == list(range(11))


async def test_a_stolen_lane_is_taken_back_and_applied_once(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """After its epoch was raised by somebody else the loop is fenced, takes again, and no record is applied twice."""
    topic = await create_topic("t")
    await send(settings, topic, [b"a"])
    async with running(topic):
        await until(at_least(store, 1))
        await store.pool.execute("UPDATE lanes SET owner_epoch = owner_epoch + 1")
        await send(settings, topic, [b"b"] * 5)
        await until(at_least(store, 6))

    assert [offset for offset, _, _ in await effects(store)] == list(range(6))
    assert store.taken[-1].owner_epoch > store.taken[0].owner_epoch + 1


async def test_an_unknown_error_ends_the_loop(
    settings: KafkaSettings, create_topic: Any, store: Any, member: ModuleType
) -> None:
    """InvariantBroken, and whatever the failure table does not name, leaves `run`."""
    topic = await create_topic("t")
    await send(settings, topic, [b"a"])

    async def broken(batch: LaneBatch) -> None:
        raise InvariantBroken(Code.INVARIANT_BROKEN, "ours")

    store.apply = broken
    with pytest.raises(InvariantBroken):
        await asyncio.wait_for(member.loop_on(store, settings, topic).run(asyncio.Event()), 20)

    async def bug(batch: LaneBatch) -> None:
        raise ZeroDivisionError

    store.apply = bug
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(member.loop_on(store, settings, topic).run(asyncio.Event()), 20)


async def test_a_raising_rebalance_callback_ends_the_loop(
    settings: KafkaSettings, create_topic: Any, store: Any, member: ModuleType
) -> None:
    """What a callback of the group raises, which aiokafka only logs, leaves `run`."""
    topic = await create_topic("t")

    def accepts(name: str) -> bool:
        raise ZeroDivisionError(name)

    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(member.loop_on(store, settings, topic, accepts=accepts).run(asyncio.Event()), 20)


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


async def test_an_open_transaction_holds_the_lane_and_its_watermark(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """At the end of its log a lane's watermark moves by itself; behind an open transaction it does not."""
    topic = await create_topic("t")
    name = settings.topic(topic)

    async def ticks() -> int:
        return int(await store.pool.fetchval("SELECT max(ticks) FROM lanes") or 0)

    async with running(topic):
        await until(_more_than(ticks, 1))
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
        await until(_more_than(ticks, still))

    assert still == held


def _more_than(count: Callable[[], Awaitable[int]], floor: int) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return await count() > floor

    return holds


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
        await until(_true(lambda: len(loop.lanes()) == 1))
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
        await until(_true(lambda: not loop.lanes()))
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
        await until(_true(lambda: len(loop.lanes()) == 1))
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
        await until(_true(lambda: bool(loop.untaken())))
        why = [reason for _, reason in loop.untaken()]
        down = False
        await until(_true(lambda: bool(loop.lanes())))

    assert why == [Code.DATABASE_UNAVAILABLE]


async def test_a_slow_handler_neither_loses_the_membership_nor_a_record(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """While batches take longer than the session and the poll interval, the lane stays ours and ticks go on."""
    topic = await create_topic("t")
    quick = settings.model_copy(update={"session_timeout_ms": 1500, "max_poll_interval_ms": 1500})
    apply = store.apply
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1

    async def slow(batch: LaneBatch) -> None:
        await asyncio.sleep(3.0)
        await apply(batch)

    store.apply = slow
    await send(settings, topic, [b"a"] * 10)
    async with running(topic, settings=quick, on_tick=tick):
        await until(at_least(store, 10))

    assert len(store.taken) == 1
    assert ticks >= 3


async def test_a_loop_that_stands_still_between_two_polls_ticks_no_more(
    settings: KafkaSettings, create_topic: Any, running: Any, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client leaves the group then, and that it has no assignment is no excuse: it waits for the next poll."""
    topic = await create_topic("t")
    quick = settings.model_copy(update={"session_timeout_ms": 1500, "max_poll_interval_ms": 1500})
    stands, ticks = asyncio.Event(), list[None]()

    async def for_ever(_: Owned) -> int:
        stands.set()
        await asyncio.Event().wait()
        return 0

    monkeypatch.setattr(Owned, "position", for_ever)
    async with running(topic, settings=quick, on_tick=lambda: ticks.append(None)) as loop:
        await until(_true(stands.is_set))
        joined = loop.joined
        await until(_true(lambda: not loop.joined))
        before = len(ticks)
        await asyncio.sleep(2.5)

    assert (joined, len(ticks) - before) == (True, 0)


@pytest.mark.parametrize(("turns", "others"), [(True, 1), (False, 0)])
async def test_a_busy_topic_leaves_places_to_others(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until, turns: bool, others: int
) -> None:
    """Lanes of one topic take turns, so two places are enough for the neighbour of two lanes that are stuck."""
    busy, quiet = await create_topic("busy", 2), await create_topic("quiet")
    apply, release = store.apply, asyncio.Event()

    async def stuck(batch: LaneBatch) -> None:
        if batch.lane.tp.topic == busy:
            await release.wait()
        await apply(batch)

    store.apply = stuck
    limits = LaneLimits(records_max=200, concurrency=2, topics_take_turns=turns)
    async with running(f"{busy}|{quiet}", limits=limits):
        await until(lambda: asyncio.sleep(0, len(store.taken) == 3))
        for partition in (0, 1):
            await send(settings, busy, [b"busy"], partition)
        await asyncio.sleep(1)
        await send(settings, quiet, [b"quiet"])
        await asyncio.sleep(1)
        meanwhile = len(await effects(store))
        release.set()
        await until(at_least(store, 3))

    assert meanwhile == others


async def test_a_lane_that_rests_gathers_what_comes_meanwhile(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """What a handler returns is how long its lane rests: records that come one by one are one batch then."""
    topic = await create_topic("t")
    apply = store.apply

    async def resting(batch: LaneBatch) -> float:
        await apply(batch)
        return 4.0

    store.apply = resting
    async with running(topic):
        await send(settings, topic, [b"first"])
        await until(at_least(store, 1))
        for _ in range(3):
            await send(settings, topic, [b"later"])
        await until(at_least(store, 4))

    assert store.batches == [(0, 1), (1, 4)]


async def test_the_groups_offsets_follow_the_lanes(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """What lag and autoscaling read is where the lanes are."""
    topic = await create_topic("t")
    await send(settings, topic, [b"a"] * 7)
    async with running(topic):
        await until(at_least(store, 7))
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap)
    await admin.start()
    offsets = await admin.list_consumer_group_offsets(settings.topic("lanes"))
    await admin.close()

    assert {tp.partition: entry.offset for tp, entry in offsets.items()} == {0: 7}


async def test_stopping_finishes_the_batch_in_flight(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """A loop that is told to stop while a batch is applied ends when that batch is, and leaves the rest."""
    topic = await create_topic("t")
    begun = asyncio.Event()
    apply = store.apply

    async def slow(batch: LaneBatch) -> None:
        begun.set()
        await asyncio.sleep(1.0)
        await apply(batch)

    store.apply = slow
    await send(settings, topic, [b"a"] * 10)
    async with running(topic):
        await asyncio.wait_for(begun.wait(), 20)

    assert len(store.batches) == 1
    assert len(await effects(store)) == store.batches[0][1]


async def test_the_gauges_tell_what_is_owned_what_waits_and_what_lags(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """Owned lanes, their lag, lanes that are untaken and why; all of it is gone with the loop."""
    topic = await create_topic("gauged", 2)
    apply = store.apply

    async def stuck(batch: LaneBatch) -> None:
        if batch.lane.tp.kafka_partition == 1:
            raise Overloaded(Code.DATABASE_UNAVAILABLE, "full", retry_in=30)
        await apply(batch)

    def shown(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(name, {"topic": topic, **labels})

    store.apply = stuck
    await send(settings, topic, [b"a"] * 3, 0)
    await send(settings, topic, [b"a"] * 5, 1)
    async with running(topic):
        await until(_true(lambda: shown("flux_lane_lag_records", kafka_partition="1") == 5))
        lag = shown("flux_lane_lag_records", kafka_partition="0")
        owned = shown("flux_lanes_owned")
        await store.pool.execute("UPDATE lanes SET topic_id = 'other' WHERE kafka_partition = 0")
        await store.pool.execute("UPDATE lanes SET owner_epoch = owner_epoch + 1 WHERE kafka_partition = 0")
        await send(settings, topic, [b"b"], 0)
        stopped = {"kafka_partition": "0", "code": Code.TOPIC_EXCHANGED.value}
        await until(_true(lambda: shown("flux_lanes_stopped", **stopped) == 1))
        untaken = shown("flux_lanes_untaken", reason=f"stopped: {Code.TOPIC_EXCHANGED.value}")

    assert (lag, owned, untaken) == (0, 2, 1)
    assert shown("flux_lanes_owned") is None
    assert shown("flux_lanes_stopped", **stopped) is None
