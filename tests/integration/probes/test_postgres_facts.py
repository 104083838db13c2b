"""Facts of PostgreSQL that a lane's Take rests on. A red probe means that a fact has moved."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress

import asyncpg

from flux_devkit.plugin import Database

HOLDER = """
import asyncio, asyncpg, sys, time
async def main():
    connection = await asyncpg.connect(sys.argv[1], server_settings={"idle_in_transaction_session_timeout": "1000"})
    await connection.execute("BEGIN; UPDATE lanes SET owner_epoch = owner_epoch + 1")
    print("locked", flush=True)
    time.sleep(600)
asyncio.run(main())
"""


async def test_a_stopped_owner_does_not_hold_its_successor_up(database: Database) -> None:
    """Over TCP, an owner that is SIGSTOPped inside its transaction loses it after the idle time-out, unapplied.

    When red: a Take may wait for a process that never comes back; end the old owner's session from outside, and check
    that services do not reach PostgreSQL over a Unix socket.
    """
    connection = await asyncpg.connect(database.dsn)
    await connection.execute("CREATE TABLE lanes (owner_epoch int); INSERT INTO lanes VALUES (1)")
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, database.dsn, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert await asyncio.wait_for(holder.stdout.readline(), 20) == b"locked\n"
        os.kill(holder.pid, signal.SIGSTOP)
        epoch = await connection.fetchval("UPDATE lanes SET owner_epoch = owner_epoch + 10 RETURNING owner_epoch")
    finally:
        with suppress(ProcessLookupError):
            holder.kill()
        await holder.wait()
        await connection.close()

    assert epoch == 11
