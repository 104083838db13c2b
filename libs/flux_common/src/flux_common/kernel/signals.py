"""Signals inside one process: whoever subscribed is woken, each on an event of its own that it alone clears."""

from __future__ import annotations

import asyncio
from collections.abc import Collection


class Signal:
    """Something happened; a hint that saves a poll, never the only way to learn of it."""

    def __init__(self) -> None:
        self._subscribers: list[tuple[int | None, asyncio.Event]] = []

    def subscribe(self, shard: int | None = None) -> asyncio.Event:
        """Return an event that is set at each signal, or at those about `shard`; its owner clears it."""
        event = asyncio.Event()
        self._subscribers.append((shard, event))
        return event

    def set(self, shards: Collection[int] | None = None) -> None:
        """Wake every subscriber; where it is known which `shards` are concerned, those of others sleep on."""
        for shard, event in self._subscribers:
            if shards is None or shard is None or shard in shards:
                event.set()


async def pause(stopping: asyncio.Event, seconds: float) -> bool:
    """Wait `seconds`, or less if `stopping` is set meanwhile; return whether to go on."""
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return True
    return False
