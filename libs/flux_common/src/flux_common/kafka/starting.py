"""Starting and stopping group consumers: however long the broker takes, and never longer than the process wants.

A broker that is not there yet is no fault: the start is tried again, with `on_tick` called before each try. A process
that stops meanwhile is not kept. Stopping is bounded, too, for it asks the broker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from flux_common.observability.logging import get_logger

log = get_logger(__name__)

CLOSE_SECONDS: Final = 10.0
CUT_OFF_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 1.0


async def started(
    new: Callable[[], AIOKafkaConsumer], stopping: asyncio.Event, timeout: float, on_tick: Callable[[], None]
) -> bool:
    """Make consumers with `new` until one has started; False if `stopping` came first, and then none is left."""
    while not stopping.is_set():
        on_tick()
        consumer = new()
        try:
            async with asyncio.timeout(timeout):
                if await unless(stopping, consumer.start()):
                    return True
        except (KafkaError, TimeoutError) as problem:
            log.warning("kafka is not reachable", error=type(problem).__name__)
        await stopped(consumer)
        await unless(stopping, asyncio.sleep(RETRY_SECONDS))
    return False


async def stopped(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer, in order if the broker answers in time.

    It has a task of its own: the client cancels its fetches and awaits them, and with a dead broker that cancels whoever
    called it. Only a cancellation of the caller's own leaves this function.
    """
    stop = asyncio.ensure_future(consumer.stop())
    try:
        await asyncio.wait({stop}, timeout=CLOSE_SECONDS)
        problem = _problem(stop)
        if problem is not None:
            log.warning("consumer did not stop in order", error=type(problem).__name__)
            await asyncio.wait({asyncio.ensure_future(consumer._client.close())}, timeout=CUT_OFF_SECONDS)
    finally:
        stop.cancel()


def _problem(stop: asyncio.Future[None]) -> BaseException | None:
    """Return why a stop is not done or failed; raises what is no outage."""
    if not stop.done():
        return TimeoutError()
    if stop.cancelled():
        return asyncio.CancelledError()
    problem = stop.exception()
    if problem is not None and not isinstance(problem, KafkaError):
        raise problem
    return problem


async def unless(stopping: asyncio.Event, doing: Coroutine[Any, Any, None]) -> bool:
    """Await `doing`, but not longer than until `stopping`; tell whether it was done."""
    task, told = asyncio.ensure_future(doing), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        return task.done()
    finally:
        task.cancel()
        told.cancel()
        await asyncio.gather(task, told, return_exceptions=True)
