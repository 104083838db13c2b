"""The lane loop on a real Kafka and a real PostgreSQL: each record once, whatever becomes of a batch, a lane or the loop."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from flux_common.kafka.lanes import LaneLimits
from flux_common.kafka.owned import Owned
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import InvariantBroken, Overloaded, RunBroken, Unavailable
from flux_common.kernel.positions import LaneBatch
from flux_common.observability.metrics import REGISTRY
from flux_common.settings import KafkaSettings

from .steps import Until, at_least, effects, send, true


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
        await until(true(lambda: failed > 2))
        failing.set()
        await until(at_least(store, 100))

    assert others == {"one"}
    counts = await store.pool.fetchrow("SELECT count(*), count(DISTINCT (kafka_partition, record_offset)) FROM effects")
    assert tuple(counts) == (100, 100)


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
        await until(true(stands.is_set))
        joined = loop.joined
        await until(true(lambda: not loop.joined))
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


async def test_a_lane_may_be_read_in_smaller_batches_for_a_while(
    settings: KafkaSettings, create_topic: Any, store: Any, running: Any, until: Until
) -> None:
    """Whoever owns the handler says of each batch anew how many records a lane's next one may have."""
    topic = await create_topic("t")
    await send(settings, topic, [b"a"] * 12)
    limits = LaneLimits(records_max=4, records_max_of=lambda _tp: 2 if len(store.batches) in (1, 2) else None)
    async with running(topic, limits=limits):
        await until(at_least(store, 12))

    assert store.batches == [(0, 4), (4, 6), (6, 8), (8, 12)]


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
        await until(true(lambda: shown("flux_lane_lag_records", kafka_partition="1") == 5))
        lag = shown("flux_lane_lag_records", kafka_partition="0")
        owned = shown("flux_lanes_owned")
        await store.pool.execute("UPDATE lanes SET topic_id = 'other' WHERE kafka_partition = 0")
        await store.pool.execute("UPDATE lanes SET owner_epoch = owner_epoch + 1 WHERE kafka_partition = 0")
        await send(settings, topic, [b"b"], 0)
        stopped = {"kafka_partition": "0", "code": Code.TOPIC_EXCHANGED.value}
        await until(true(lambda: shown("flux_lanes_stopped", **stopped) == 1))
        untaken = shown("flux_lanes_untaken", reason=f"stopped: {Code.TOPIC_EXCHANGED.value}")

    assert (lag, owned, untaken) == (0, 2, 1)
    assert shown("flux_lanes_owned") is None
    assert shown("flux_lanes_stopped", **stopped) is None
