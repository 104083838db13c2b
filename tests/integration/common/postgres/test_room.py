"""Room in the outbox: lanes wait where the relay stands still, on a real PostgreSQL and a real Kafka."""

from __future__ import annotations

import asyncio
from itertools import product
from typing import Any

import pytest
from structlog.testing import capture_logs

from flux_common.kernel.errors import Overloaded
from flux_common.kernel.ids import SHARDS, shard_of
from flux_common.kernel.positions import Lane, LaneBatch, Received, TopicPartition
from flux_common.observability import metrics
from flux_common.postgres.lanes import PostgresLanes
from flux_common.postgres.room import OutboxRoom, RoomLimits

TP = TopicPartition("flux-internal.progress.v1", 3)
OTHER = next(name for name in ("esa", "jaxa", "bnf", "dlr") if shard_of(name) != shard_of("nasa"))


async def taken(lanes: PostgresLanes) -> Lane:
    """Take the lane at offset 0."""
    return await lanes.take(TP, topic_id="id-1", log_start=0, log_end=1000)


def batch(lane: Lane) -> LaneBatch:
    """Return the lane's next record."""
    return LaneBatch(lane, [Received(TP.at(lane.next_offset), b"k", b"v")], lane.next_offset + 1)


async def test_lanes_wait_until_the_relay_has_made_room(bench: Any, create_topic: Any, until: Any) -> None:
    """At the bound nothing of a batch is kept, and it is told once; what writes no event goes on, and all behind the relay."""
    topic = await create_topic("t")
    room = OutboxRoom(bench.database, RoomLimits(rows_max=3))
    lanes, elsewhere = (PostgresLanes(bench.database, "checkpoint", room=room.check) for _ in range(2))
    lane = await taken(lanes)
    await bench.write(*(bench.event(topic, n) for n in range(3)))
    with capture_logs() as lines:
        await room.measure()
        await room.measure()
        with pytest.raises(Overloaded, match="OUTBOX_FULL"):
            async with lanes.advance(batch(lane), ["nasa"]) as advance:
                advance.emit([bench.event(topic, 3)])
        with pytest.raises(Overloaded):
            async with lanes.advance(batch(lane), ["nasa"]):
                pytest.fail("a lane that waits is not worked")
        async with elsewhere.advance(batch(lane), ["nasa"]):
            pass
        room.check([OTHER])
        bench.start()
        await until(bench.empty)
        await room.measure()
        async with lanes.advance(batch(await taken(lanes)), ["nasa"]) as advance:
            advance.emit([bench.event(topic, 3)])
        bench.wake.set()
        await until(bench.empty)
        await bench.stop()
    told = [line["event"] for line in lines if "room" in line["event"]]

    assert await bench.published(topic) == [0, 1, 2, 3]
    assert await bench.one("SELECT next_offset FROM lanes") == 2
    assert told == ["lanes wait for room in the outbox", "there is room in the outbox"]


async def test_there_is_room_again_below_half_of_the_bound(bench: Any) -> None:
    """Who was held finds more than the place of one row; and every shard's figures are told."""
    room = OutboxRoom(bench.database, RoomLimits(rows_max=4))
    gauges = (metrics.outbox_oldest_age_seconds, metrics.outbox_parked_rows)
    for gauge, shard in product(gauges, range(SHARDS)):
        gauge.labels(str(shard)).set(9)
    await bench.write(*(bench.event("t", n) for n in range(4)))
    await room.measure()
    held = []
    for number in range(3):
        await bench.one("DELETE FROM outbox WHERE value = $1", b"%d" % number)
        await room.measure()
        held.append(bool(room._full))
    ages, parked = ([gauge.labels(str(shard))._value.get() for shard in range(SHARDS)] for gauge in gauges)

    assert held == [True, True, False]
    assert 0 < ages[0] < 9
    assert ages[1:] == [0, 0, 0]
    assert parked == [0, 0, 0, 0]


async def test_bytes_count_as_rows_do(bench: Any) -> None:
    """Few large events fill a shard, too; one byte less does not."""
    await bench.write(bench.event("t", 1, value=b"x" * 600), bench.event("t", 2, value=b"x" * 400))
    roomy, full = (OutboxRoom(bench.database, RoomLimits(bytes_max=most)) for most in (1001, 1000))
    await asyncio.gather(roomy.measure(), full.measure())

    roomy.check(["nasa"])
    with pytest.raises(Overloaded):
        full.check(["nasa", OTHER])


async def test_what_is_parked_takes_no_room(bench: Any, create_topic: Any, until: Any) -> None:
    """A topic that is refused fills its own place behind the outbox, and holds nobody."""
    topic = await create_topic("t", max_message_bytes="2000")
    room = OutboxRoom(bench.database, RoomLimits(rows_max=1))
    await bench.write(bench.event(topic, 1, value=b"x" * 5000))
    await room.measure()
    with pytest.raises(Overloaded):
        room.check(["nasa"])
    bench.start()
    await until(lambda: bench.one("SELECT EXISTS (SELECT FROM outbox_parked)"))
    await bench.stop()
    await room.measure()

    room.check(["nasa"])


async def test_the_last_measurement_stands_while_postgresql_is_away(bench: Any, until: Any) -> None:
    """The keeper measures by itself, outlives a database that does not answer, and ends when told to."""
    stopping = asyncio.Event()
    room = OutboxRoom(bench.database, RoomLimits(rows_max=1))
    await bench.write(bench.event("t", 1))
    keeping = asyncio.create_task(room.keep(stopping))
    await until(lambda: asyncio.sleep(0, bool(room._full)))
    await bench.database.close()
    await asyncio.sleep(2.5)  # a measurement falls into it
    stopping.set()
    await asyncio.wait_for(keeping, 10)

    with pytest.raises(Overloaded):
        room.check(["nasa"])
