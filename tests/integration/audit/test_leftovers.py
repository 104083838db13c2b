"""The timer on a real PostgreSQL: nothing stays unsigned, whoever died, and only a lane's owner signs."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flux_common.contracts.catalogue import RECEIPTS, TREE_HEADS
from flux_common.kernel.errors import Unavailable
from flux_common.observability import metrics

from .conftest import LANE, NASAS_LANE, NOW, Bench, Benches, fact


async def sizes(bench: Bench) -> list[int]:
    return [head["size"] for head in await bench.outbox(TREE_HEADS.name) if "size" in head]


async def test_what_no_batch_signed_is_signed_by_the_timer(bench: Bench) -> None:
    """Within a second of a head a fact waits; after it, the timer signs, and its receipt verifies."""
    await bench.feed([fact(1)])
    await bench.feed([fact(2)])
    await bench.leftovers.round()
    early = await sizes(bench)
    bench.clock.ticks += 1
    await bench.leftovers.round()
    await bench.leftovers.round()

    assert (early, await sizes(bench)) == ([1], [1, 2])
    assert [bench.verify(one)["refs"]["n"] for one in await bench.outbox(RECEIPTS.of("nasa"))] == [1, 2]


async def test_a_successor_signs_what_the_dead_owner_left(benches: Benches) -> None:
    """The owner dies with sealed, unsigned leaves: whoever takes the lane finds them by the memory, and no fact comes."""
    dead = benches()
    await dead.feed([fact(1)], NASAS_LANE)
    await dead.feed([fact(2)], NASAS_LANE)
    successor = benches()
    await successor.take(NASAS_LANE)
    await successor.leftovers.round()
    before = await sizes(successor)
    published = await dead.signed()
    assert published is not None
    successor.memory.heads["nasa"] = published  # the relay publishes what stood in the outbox
    successor.clock.ticks += 1
    await successor.leftovers.round()

    assert (before, await sizes(successor)) == ([1], [1, 2])
    assert await successor.check_log() == 2


async def test_an_owner_of_old_signs_nothing(benches: Benches) -> None:
    """The timer of a process whose lane was taken signs nothing, and lets go of the lane."""
    old, new = benches(), benches()
    await old.feed([fact(1)])
    await old.feed([fact(2)])
    await new.take(LANE)
    old.clock.ticks += 1
    await old.leftovers.round()
    await old.leftovers.round()

    assert await sizes(new) == [1]


async def test_the_memory_is_read_at_every_take_before_anything_is_sealed(benches: Benches) -> None:
    """A memory that cannot be read seals nothing, and a second Take reads it again."""
    bench = benches()
    await bench.feed([fact(1)])
    first = bench.memory.refreshes
    await bench.feed([fact(2)])
    same = bench.memory.refreshes
    await bench.take(LANE)
    await bench.feed([fact(3)])

    assert (first, same, bench.memory.refreshes) == (1, 1, 2)


async def test_nothing_is_sealed_while_the_memory_cannot_be_read(benches: Benches) -> None:
    """The lane is told to wait, and its row stands."""
    bench = benches()

    async def fail() -> None:
        raise Unavailable("BROKER_UNAVAILABLE", "no answer")

    bench.memory.refresh = fail  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await bench.feed([fact(1)])

    assert await bench.rows("nasa", "SELECT 1 FROM flux.audit_log") == []


async def test_a_lane_says_how_far_it_is(bench: Bench) -> None:
    """Every five seconds, where there is something new: the offset, and up to when facts are sealed."""
    for number in range(3):
        await bench.feed([fact(number)])
        await bench.leftovers.round()
        bench.clock.ticks += 3
    await bench.leftovers.round()
    bench.clock.ticks += 10
    await bench.leftovers.round()
    told = [one for one in await bench.outbox(TREE_HEADS.name) if "next_offset" in one]

    assert [one["next_offset"] for one in told] == [1, 3]
    assert {one["watermark"] for one in told} == {"2026-01-01T00:00:00.000Z"}
    assert {one["kafka_partition"] for one in told} == {LANE.kafka_partition}


async def test_the_seal_lag_is_the_age_of_the_oldest_unsigned_fact(bench: Bench) -> None:
    """It grows while a fact is under no head, and is nothing once it is."""
    gauge = metrics.seal_lag_seconds.labels(str(LANE.kafka_partition))._value
    await bench.feed([fact(1)])
    await bench.feed([fact(2)])
    bench.clock.at = NOW + timedelta(seconds=9)
    await bench.leftovers.round()
    waiting = gauge.get()
    bench.clock.ticks += 1
    await bench.leftovers.round()

    assert (waiting, gauge.get()) == (9.0, 0.0)
