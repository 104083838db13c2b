"""The functions that let things expire: in bounded steps, of one agency, and never what is still in work."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from flux_common.postgres.database import Database

RUN = """
INSERT INTO flux.runs (agency_id, run_id, request_id, request, request_sha256, state, run_attempt, terminal_attempt, cause,
                       code, run_window, agency_window, kafka_partition, kafka_offset, admitted_at, deadline, expires_at)
SELECT $1, $2, 'r-' || $3::int, '{}', sha256('x'), $4, 1, CASE WHEN $4 = 'RUNNING' THEN 0 ELSE 1 END, 'input', 'X', 1, 1,
       0, $3, now(), now(), now() + $5::interval
"""
ITEM = """
INSERT INTO flux.checkpoints (agency_id, run_id, kind, number, state) VALUES ($1, $2, 'extract', 0, 'PENDING')
"""
HASH = """
INSERT INTO flux.checkpoint_hashes (agency_id, run_id, number, seq, prev, hash, kafka_partition, kafka_offset)
VALUES ($1, $2, 0, 1, sha256('a'), sha256('b'), 0, 0)
"""
EVENT = """
INSERT INTO flux.checkpoint_events (agency_id, run_id, type, source, happened_at) VALUES ($1, $2, 'x', 'dispatcher', $3)
"""
COUNTS = """
SELECT (SELECT count(*) FROM flux.runs), (SELECT count(*) FROM flux.checkpoints),
       (SELECT count(*) FROM flux.checkpoint_hashes), (SELECT count(*) FROM flux.checkpoint_events)
"""
EXPIRE_RUNS = "SELECT flux.expire_runs($1, now(), $2)"
EXPIRE_EVENTS = "SELECT flux.expire_events($1, now() - interval '90 days', $2)"


async def add_run(admin: Any, agency: str, number: int, state: str, expires: str, *, event_days: int = 100) -> UUID:
    """Insert a run with an item, a link of its chain and an old line of history."""
    run = UUID(int=number)
    await admin.execute(RUN.replace("$5::interval", f"interval '{expires}'"), agency, run, number, state)
    await admin.execute(ITEM, agency, run)
    await admin.execute(HASH, agency, run)
    await admin.execute(EVENT.replace("$3", f"now() - interval '{event_days} days'"), agency, run)
    return run


async def call(database: Database, agency: str, query: str, rows: int = 100, *, seen: str | None = None) -> int:
    """Call a function as checkpoint, seeing `seen` (the agency itself)."""
    async with database.transaction([seen or agency]) as connection:
        return int(await connection.fetchval(query, agency, rows))


async def test_ended_runs_expire_with_what_belongs_to_them(checkpoint_database: Database, admin: Any) -> None:
    """Items and chains go with the run; history has a time of its own; open and younger runs stay."""
    await add_run(admin, "nasa", 1, "FAILED", "-1 day")
    await add_run(admin, "nasa", 2, "FAILED", "1 day")
    await add_run(admin, "nasa", 3, "RUNNING", "-1 day")
    await add_run(admin, "loc", 4, "FAILED", "-1 day")
    gone = [await call(checkpoint_database, "nasa", EXPIRE_RUNS) for _ in range(2)]

    assert gone == [1, 0]
    assert tuple(await admin.fetchrow(COUNTS)) == (3, 3, 3, 4)
    assert {row["request_id"] for row in await admin.fetch("SELECT request_id FROM flux.runs")} == {"r-2", "r-3", "r-4"}


async def test_history_expires_first_and_only_of_ended_runs(checkpoint_database: Database, admin: Any) -> None:
    """Old lines of ended or expired runs go, chains stay provable without them; lines of open runs stay, however old."""
    await add_run(admin, "nasa", 1, "FAILED", "1 day")
    await add_run(admin, "nasa", 2, "RUNNING", "1 day")
    await add_run(admin, "nasa", 3, "FAILED", "1 day", event_days=10)
    await admin.execute(EVENT.replace("$3", "now() - interval '91 days'"), "nasa", UUID(int=9))
    gone = await call(checkpoint_database, "nasa", EXPIRE_EVENTS)

    assert gone == 2
    assert tuple(await admin.fetchrow(COUNTS)) == (3, 3, 3, 2)


async def test_expiry_is_bounded(checkpoint_database: Database, admin: Any) -> None:
    """A step deletes at most what it was allowed, and the oldest first."""
    for number in range(5):
        await add_run(admin, "nasa", number, "FAILED", f"-{number + 1} day")
    gone = [await call(checkpoint_database, "nasa", EXPIRE_RUNS, 2) for _ in range(2)]
    left = await admin.fetchval("SELECT request_id FROM flux.runs")
    gone_events = [await call(checkpoint_database, "nasa", EXPIRE_EVENTS, 3) for _ in range(3)]

    assert (gone, left, gone_events) == ([2, 2], "r-0", [3, 2, 0])


@pytest.mark.parametrize("query", [EXPIRE_RUNS, EXPIRE_EVENTS])
async def test_nobody_elses_rows_expire(checkpoint_database: Database, admin: Any, query: str) -> None:
    """The function runs as its caller: naming another agency than the transaction's deletes nothing."""
    await add_run(admin, "nasa", 1, "FAILED", "-1 day")

    assert await call(checkpoint_database, "nasa", query, seen="loc") == 0
    assert tuple(await admin.fetchrow(COUNTS)) == (1, 1, 1, 1)


async def test_a_run_that_is_retried_meanwhile_does_not_expire(checkpoint_database: Database, admin: Any) -> None:
    """Expiry meets a retry that is not committed: it passes the run over, and does not wait for it and delete it then."""
    run = await add_run(admin, "nasa", 1, "FAILED", "-1 day")
    async with checkpoint_database.transaction(["nasa"]) as connection:
        await connection.execute(
            "UPDATE flux.runs SET state = 'RUNNING', run_attempt = 2 WHERE agency_id = 'nasa' AND run_id = $1", run
        )
        expiring = asyncio.create_task(call(checkpoint_database, "nasa", EXPIRE_RUNS))
        await asyncio.wait({expiring}, timeout=1)

    assert await expiring == 0
    assert tuple(await admin.fetchrow(COUNTS)) == (1, 1, 1, 1)
