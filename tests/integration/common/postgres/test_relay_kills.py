"""Relay processes killed in the middle of what they do: a read_committed reader sees each event once, in order."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from pathlib import Path
from typing import Any

PROCESS = Path(__file__).with_name("relay_process.py")
KILLS = 6
ROWS = 900


async def test_events_are_read_once_over_kills(
    bench: Any, create_topic: Any, until: Any, settings_for: Any, kafka: Any
) -> None:
    """Six SIGKILLs while rows are decided and relayed: nothing is lost, doubled or out of order per key."""
    topic, seed = await create_topic("t", 2), random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    login = settings_for("flux_checkpoint")

    async def relay() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, str(PROCESS), login.dsn, str(login.password_file), kafka.bootstrap, kafka.topic_prefix,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def decide() -> None:
        for number in range(0, ROWS, 10):
            await bench.write(*(bench.event(topic, n, key=f"k{n % 5}") for n in range(number, number + 10)))
            await asyncio.sleep(0.05)

    writing = asyncio.create_task(decide())
    caught = 0
    for kill in range(KILLS + 1):
        process = await relay()
        assert process.stdout is not None
        await process.stdout.readline()
        if kill == KILLS:
            await writing
            await until(bench.empty, 60)
        else:
            cursor = (await bench.lease())[1]
            await until(lambda cursor=cursor: _moved(bench, cursor))
            await asyncio.sleep(chance.random() * 0.03)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        caught += await bench.one("SELECT count(*) > 0 FROM outbox WHERE number IS NOT NULL")
    by_key: dict[bytes, list[int]] = {}
    for record in await bench.records(topic, 2):
        by_key.setdefault(record.key, []).append(int(record.value))

    print(f"{caught} of {KILLS} died between numbering and deleting")

    assert by_key == {b"k%d" % k: list(range(k, ROWS, 5)) for k in range(5)}


async def _moved(bench: Any, cursor: int) -> bool:
    """Tell whether a relay has published something; true as well when nothing is left to publish."""
    return bool((await bench.lease())[1] > cursor or await bench.empty())
