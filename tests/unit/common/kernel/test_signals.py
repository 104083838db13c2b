"""Signals inside one process, and the pause that a stop cuts short."""

from __future__ import annotations

import asyncio

from flux_common.kernel.signals import Signal, pause


async def test_every_subscriber_is_woken_on_an_event_of_its_own() -> None:
    """One that clears its event takes nothing from the others."""
    signal = Signal()
    first, second = signal.subscribe(), signal.subscribe()
    signal.set()
    first.clear()

    assert (first.is_set(), second.is_set()) == (False, True)


async def test_only_the_shards_concerned_are_woken() -> None:
    """Whoever waits for another shard sleeps on; whoever waits for any is always woken, and so is everybody by a plain set."""
    signal = Signal()
    one, other, anything = signal.subscribe(1), signal.subscribe(2), signal.subscribe()
    signal.set({2, 3})
    woken = (one.is_set(), other.is_set(), anything.is_set())
    signal.set()

    assert (woken, one.is_set()) == ((False, True, True), True)


async def test_a_pause_says_whether_to_go_on() -> None:
    """True when the time is over, False when the stop came first."""
    stopping = asyncio.Event()
    went_on = await pause(stopping, 0.001)
    stopping.set()

    assert (went_on, await pause(stopping, 60)) == (True, False)
