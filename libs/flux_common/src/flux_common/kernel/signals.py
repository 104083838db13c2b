"""Signals inside one process: whoever subscribed is woken, each on an event of its own that it alone clears."""

from __future__ import annotations

import asyncio


class Signal:
    """Something happened; a hint that saves a poll, never the only way to learn of it."""

    def __init__(self) -> None:
        self._subscribers: list[asyncio.Event] = []

    def subscribe(self) -> asyncio.Event:
        """Return an event that is set at each signal; its owner clears it."""
        event = asyncio.Event()
        self._subscribers.append(event)
        return event

    def set(self) -> None:
        """Wake every subscriber."""
        for event in self._subscribers:
            event.set()


async def pause(stopping: asyncio.Event, seconds: float) -> bool:
    """Wait `seconds`, or less if `stopping` is set meanwhile; return whether to go on."""
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return True
    return False
