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
    """Stop a consumer, in order if the broker answers in time."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await consumer.stop()
    except (KafkaError, TimeoutError) as problem:
        log.warning("consumer did not stop in order", error=type(problem).__name__)


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
