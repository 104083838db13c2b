"""A real service whose polls hang for ever from SIGUSR1 on: `python -m hanging_service flux_audit serve`.

What a lost wake-up in the client would do. The event loop goes on, so the operations port answers.
"""

from __future__ import annotations

import asyncio
import runpy
import signal
import sys
from typing import Any

from aiokafka.consumer.fetcher import Fetcher

hung = False


def hang(*_: object) -> None:
    """Let the next poll hang."""
    global hung
    hung = True


fetched = Fetcher.fetched_records


async def fetched_records(self: Any, *arguments: Any, **options: Any) -> Any:
    """Return what was fetched, or nothing ever."""
    if hung:
        await asyncio.Event().wait()
    return await fetched(self, *arguments, **options)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, hang)
    Fetcher.fetched_records = fetched_records
    module, *sys.argv[1:] = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
