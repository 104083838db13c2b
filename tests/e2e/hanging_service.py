"""A real service whose polls hang for ever from SIGUSR1 on: `python -m hanging_service flux_audit serve`.

What a lost wake-up in the client would do. The event loop goes on, so the operations port answers.
"""

from __future__ import annotations

import asyncio
import runpy
import signal
import sys
from contextvars import ContextVar
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import Fetcher

hung = False


def hang(*_: object) -> None:
    """Let the next poll hang."""
    global hung
    hung = True


getmany, fetched = AIOKafkaConsumer.getmany, Fetcher.fetched_records
polls_for_a_group = ContextVar("polls_for_a_group", default=False)


async def telling_getmany(self: Any, *arguments: Any, **options: Any) -> Any:
    """Poll, and tell the fetcher for whom: a consumer that only follows a topic goes on."""
    polls_for_a_group.set(self._group_id is not None)
    return await getmany(self, *arguments, **options)


async def fetched_records(self: Any, *arguments: Any, **options: Any) -> Any:
    """Return what was fetched, or to a group's member nothing ever."""
    if hung and polls_for_a_group.get():
        await asyncio.Event().wait()
    return await fetched(self, *arguments, **options)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, hang)
    AIOKafkaConsumer.getmany, Fetcher.fetched_records = telling_getmany, fetched_records
    module, *sys.argv[1:] = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
