"""Awaiting several things at once, and failing as one thing.

`asyncio.TaskGroup` wraps the failure of one task in a group, and `gather` leaves the others running; the work wants the
first failure itself (its class is an instruction) and nothing left behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

_Result = TypeVar("_Result")


async def all_of(works: Iterable[Coroutine[Any, Any, _Result]], *, at_once: int | None = None) -> list[_Result]:
    """Return the results in order, working at most `at_once` at a time; the first failure cancels the others."""
    gate = asyncio.Semaphore(at_once) if at_once else None
    tasks = [asyncio.create_task(_through(gate, work)) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await stop(tasks)


async def _through(gate: asyncio.Semaphore | None, work: Coroutine[Any, Any, _Result]) -> _Result:
    if gate is None:
        return await work
    async with gate:
        return await work


async def stop(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they are over; what they raise is of no more interest."""
    left = list(tasks)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
