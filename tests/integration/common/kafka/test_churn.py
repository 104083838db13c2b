"""Members of a lane group join, are stopped, killed and frozen while records pour in: none is lost, none is applied twice."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from flux_common.settings import KafkaSettings
from flux_devkit.plugin import Database

MEMBER = Path(__file__).with_name("member.py")
PARTITIONS = 4


class Members:
    """Processes of `member.py` on one topic; all are ended with the block."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._all: list[asyncio.subprocess.Process] = []

    async def join(self) -> asyncio.subprocess.Process:
        """Start a member and wait until it has taken a lane."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(MEMBER), *self._arguments, stdout=asyncio.subprocess.PIPE
        )
        self._all.append(process)
        assert process.stdout is not None
        while not (line := await asyncio.wait_for(process.stdout.readline(), 30)).startswith(b"taken"):
            assert line, "the member ended before it took a lane"
        self._reading = asyncio.ensure_future(_drain(process.stdout))
        return process

    async def end(self) -> None:
        """Kill whatever still runs."""
        for process in self._all:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.readline():
        pass


@contextlib.asynccontextmanager
async def pouring(settings: KafkaSettings, name: str) -> AsyncIterator[list[int]]:
    """Send numbered values to all Kafka partitions, some in transactions that are aborted; yields what was committed."""
    stop = asyncio.Event()
    committed: list[int] = []

    async def pour() -> None:
        number = 0
        async with AIOKafkaProducer(
            bootstrap_servers=settings.bootstrap, transactional_id=settings.topic("pour")
        ) as producer:
            while not stop.is_set():
                await producer.begin_transaction()
                batch = list(range(number, number + 40))
                number += 40
                for n in batch:
                    await producer.send(name, b"%d" % n, partition=n % PARTITIONS)
                if number % 400 == 0:
                    await producer.flush()
                    await producer.abort_transaction()
                else:
                    await producer.commit_transaction()
                    committed.extend(batch)
                await asyncio.sleep(0.03)

    task = asyncio.create_task(pour())
    try:
        yield committed
    finally:
        stop.set()
        await task


async def test_churn_loses_nothing_and_repeats_nothing(
    settings: KafkaSettings, create_topic: Any, store: Any, database: Database, until: Callable[..., Any]
) -> None:
    """A joins, B joins, B is stopped, C joins, C is killed, D joins, A is frozen for longer than its session and wakes."""
    topic = await create_topic("t", PARTITIONS)
    members = Members(settings.bootstrap, settings.topic_prefix, database.dsn, topic)
    async with pouring(settings, settings.topic(topic)) as committed:
        try:
            a = await members.join()
            b = await members.join()
            b.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(b.wait(), 30) == 0
            c = await members.join()
            c.send_signal(signal.SIGKILL)
            await c.wait()
            await members.join()
            a.send_signal(signal.SIGSTOP)
            await asyncio.sleep(4.5)
            a.send_signal(signal.SIGCONT)
            await asyncio.sleep(1.5)
            sent = len(committed)

            async def all_applied() -> bool:
                return bool(await store.pool.fetchval("SELECT count(DISTINCT value) >= $1 FROM effects", sent))

            await until(all_applied, 40)
        finally:
            await members.end()
    await _drain_rest(settings, topic, store, database, len(committed), until)

    values = sorted(int(row["value"]) for row in await store.pool.fetch("SELECT value FROM effects"))
    accounted = await store.pool.fetchval("SELECT sum(next_offset) - sum(controls) FROM lanes")
    assert values == sorted(committed)
    assert accounted == len(committed)


async def _drain_rest(
    settings: KafkaSettings, topic: str, store: Any, database: Database, count: int, until: Callable[..., Any]
) -> None:
    """Let one more member apply what the others left."""
    last = Members(settings.bootstrap, settings.topic_prefix, database.dsn, topic)

    async def all_applied() -> bool:
        return bool(await store.pool.fetchval("SELECT count(*) >= $1 FROM effects", count))

    try:
        await last.join()
        await until(all_applied, 40)
    finally:
        await last.end()
