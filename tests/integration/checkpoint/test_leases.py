"""Leases: one dispatcher for each shard, after another and against another."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from flux_checkpoint.adapters.dispatcher import Leases
from flux_checkpoint.domain.dispatch import decide
from flux_checkpoint.domain.model import RunKey
from flux_common.kernel.errors import Fenced
from flux_common.kernel.ids import run_id, shard_of

from .conftest import Bench
from .records import AGENCY, RUN, admitted, answer

COMPLETED = "flux.run.completed.v1"
SHARD = shard_of(AGENCY)
KEY = RunKey(AGENCY, run_id(AGENCY, "r-1"))


async def test_a_second_dispatcher_takes_over_only_after_the_lease(bench: Bench) -> None:
    """While the first holds the lease the second gets nothing; once it is over the second has a new term."""
    first, second = Leases(bench.database, "first", 60), Leases(bench.database, "second", 60)
    term = await first.acquire(SHARD)
    early = await second.acquire(SHARD)
    again = await first.acquire(SHARD)
    await bench.execute("UPDATE dispatcher_leases SET expires_at = now() WHERE shard = $1", SHARD)
    late = await second.acquire(SHARD)

    assert term is not None
    assert (early, again, late) == (None, term, term + 1)
    assert await first.acquire(SHARD) is None


async def test_a_dispatcher_that_lost_its_lease_writes_nothing(bench: Bench) -> None:
    """Fenced: the first statement of its pass finds another term, and nothing is changed."""
    await bench.runs(admitted())
    first, _ = bench.dispatcher(holder="first")
    second = Leases(bench.database, "second", 60)
    first._term = await Leases(bench.database, "first", 60).acquire(SHARD)
    await bench.execute("UPDATE dispatcher_leases SET expires_at = now() WHERE shard = $1", SHARD)
    await second.acquire(SHARD)
    before = await bench.row("SELECT state, changed_at FROM flux.runs")
    with pytest.raises(Fenced):
        await first._pass(KEY, decide)
    await bench.drain()

    assert tuple(await bench.row("SELECT state, changed_at FROM flux.runs")) == tuple(before)
    assert bench.told == []
    assert (await bench.row("SELECT holder FROM dispatcher_leases WHERE shard = $1", SHARD))[0] == "second"


async def test_a_dispatcher_that_goes_on_after_a_stop_finds_itself_fenced(bench: Bench) -> None:
    """It waits for the lease again and leaves the successor's work alone."""
    await bench.runs(admitted())
    dispatcher, wake = bench.dispatcher(holder="first", lease=0.0)
    stopping = asyncio.Event()
    task = asyncio.create_task(dispatcher.run(stopping))
    async with asyncio.timeout(20):
        while not await bench.work():
            await asyncio.wait([task], timeout=0.01)
    await Leases(bench.database, "second", 60).acquire(SHARD)
    await bench.reports(*answer({"agency_id": AGENCY, "run_id": RUN, "kind": "plan", "number": 0, "term": 1}, [1]))
    await asyncio.wait([task], timeout=0.6)
    stopping.set()
    wake.set()
    await task

    assert (await bench.row("SELECT state FROM flux.runs"))[0] == "PLANNING"
    assert (await bench.row("SELECT holder FROM dispatcher_leases WHERE shard = $1", SHARD))[0] == "second"


async def test_two_racing_dispatchers_end_each_attempt_once(bench: Bench) -> None:
    """Both believe that the lease is theirs, again and again: every dispatch and every end happens once."""
    names = [f"r-{n}" for n in range(6)]
    await bench.runs(*(admitted(name) for name in names))
    stopping = asyncio.Event()
    pairs = [bench.dispatcher(holder=holder, lease=0.0) for holder in ("first", "second")]
    tasks = [asyncio.create_task(stubborn(dispatcher, stopping)) for dispatcher, _ in pairs]
    async with asyncio.timeout(60):
        while (await bench.row("SELECT count(*) FROM agenda"))[0]:
            for work in await bench.work():
                await bench.reports(*answer(work, [1, 1]))
            for _, wake in pairs:
                wake.set()
            await asyncio.wait(tasks, timeout=0.02)
    stopping.set()
    for _, wake in pairs:
        wake.set()
    await asyncio.gather(*tasks)
    terms = await bench.row("SELECT term FROM dispatcher_leases WHERE shard = $1", SHARD)

    assert sorted(one["request_id"] for one in await bench.outbox(COMPLETED)) == names
    assert terms[0] > 1, "the lease never changed hands: there was no race"


async def stubborn(dispatcher: Any, stopping: asyncio.Event) -> None:
    """Dispatch without the pauses that a fenced dispatcher makes."""
    while not stopping.is_set():
        dispatcher._term = await dispatcher._leases.acquire(SHARD) or dispatcher._term
        with suppress(Fenced):
            for key in await dispatcher._leases.due(SHARD, 64):
                await dispatcher._work_off(key, stopping)
        await asyncio.sleep(0)


async def test_a_released_lease_is_free_at_once(bench: Bench) -> None:
    """Whoever stops in order gives its lease back; whoever lost it before gives nothing back."""
    first, second = Leases(bench.database, "first", 60), Leases(bench.database, "second", 60)
    term = await first.acquire(SHARD)
    assert term is not None
    await first.release(SHARD, term)
    taken = await second.acquire(SHARD)
    await first.release(SHARD, term)

    assert taken == term + 1
    assert await Leases(bench.database, "third", 60).acquire(SHARD) is None


async def test_the_sweep_of_a_dispatcher_mends_what_the_agenda_forgot(bench: Bench) -> None:
    """A run that nobody looks at is found when the dispatcher begins, and goes on to its end."""
    await bench.runs(admitted())
    await bench.execute("DELETE FROM agenda")
    dispatcher, wake = bench.dispatcher()
    stopping = asyncio.Event()
    task = asyncio.create_task(dispatcher.run(stopping))
    async with asyncio.timeout(20):
        while not (works := await bench.work()):
            await asyncio.wait([task], timeout=0.01)
    stopping.set()
    wake.set()
    await task

    assert [work["kind"] for work in works] == ["plan"]
