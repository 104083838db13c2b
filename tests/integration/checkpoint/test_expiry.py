"""What was kept long enough goes in bounded steps, each with its fact; what is in work, or another agency's, stays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import yaml

from flux_checkpoint.adapters.expiry import PostgresExpiry
from flux_checkpoint.adapters.retention import Retentions
from flux_checkpoint.handlers.expiry import Expiry, Keeping
from flux_client.development import DevelopmentAgency, write_development_registry
from flux_common.contracts import catalogue
from flux_common.kernel.ids import shard_of
from flux_common.kernel.signals import Signal
from flux_common.postgres.database import Database
from flux_devkit.plugin import Database as OneDatabase

RUN = """
INSERT INTO flux.runs (agency_id, run_id, request_id, request, request_sha256, state, run_attempt, terminal_attempt, cause,
                       code, run_window, agency_window, kafka_partition, kafka_offset, admitted_at, deadline, expires_at)
SELECT $1, $2, 'r-' || $3::int, '{}', sha256('x'), $4, 1, CASE WHEN $4 = 'RUNNING' THEN 0 ELSE 1 END, 'input', 'X', 1, 1,
       0, $3, now(), now(), now() + make_interval(days => $5)
"""
EVENT = """
INSERT INTO flux.checkpoint_events (agency_id, run_id, type, source, happened_at)
SELECT $1, $2, 'x', 'dispatcher', now() - interval '100 days' FROM generate_series(1, $3)
"""
KEEPING = Keeping(lambda _agency: timedelta(days=90), events_a_step=3, runs_a_step=2)


@pytest.fixture
async def admin(database: OneDatabase) -> AsyncIterator[Any]:
    """The superuser, who sees all rows."""
    connection = await asyncpg.connect(database.dsn)
    yield connection
    await connection.close()


async def add_run(admin: Any, agency: str, number: int, state: str, days: int, events: int = 0) -> None:
    """Insert a run that expires in `days`, with some old lines of history."""
    await admin.execute(RUN, agency, UUID(int=number), number, state, days)
    await admin.execute(EVENT, agency, UUID(int=number), events)
    await admin.execute(
        "INSERT INTO flux_checkpoint.agencies (agency_id, shard) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        agency,
        shard_of(agency),
    )


async def facts(admin: Any) -> list[tuple[str, str, int]]:
    """Return whose log, type and count of each fact in the outbox, in the order in which they leave."""
    rows = await admin.fetch("SELECT * FROM flux_checkpoint.outbox ORDER BY id")
    bodies = [json.loads(row["value"]) for row in rows]
    assert {row["topic"] for row in rows} <= {catalogue.AUDIT.name}
    assert [row["agency_id"] for row in rows] == [body["agency_id"] for body in bodies]
    assert len({row["event_id"] for row in rows}) == len(rows)
    return [(body["agency_id"], body["type"], body["refs"]["count"]) for body in bodies]


async def left(admin: Any) -> tuple[int, int]:
    """Return how many runs and lines of history there are."""
    row = await admin.fetchrow("SELECT (SELECT count(*) FROM flux.runs), (SELECT count(*) FROM flux.checkpoint_events)")
    return row[0], row[1]


async def test_what_is_due_goes_in_bounded_steps_each_with_a_fact(checkpoint_database: Database, admin: Any) -> None:
    """History before runs, three lines and two runs a step, each agency in its own name; a second pass finds nothing."""
    for number in range(3):
        await add_run(admin, "nasa", number, "FAILED", -1 - number, events=1)
    await add_run(admin, "nasa", 3, "FAILED", 5, events=4)
    await add_run(admin, "nasa", 4, "RUNNING", -5, events=2)
    await add_run(admin, "loc", 5, "FAILED", -1)
    committed = Signal()
    told = committed.subscribe()
    expiry = Expiry(checkpoint_database, PostgresExpiry, KEEPING, committed)
    gone = [await expiry.make_pass(), await expiry.make_pass()]

    assert gone == [{"run-events.expired": 7, "runs.expired": 4}, {"run-events.expired": 0, "runs.expired": 0}]
    assert await facts(admin) == [
        ("loc", "runs.expired", 1),
        ("nasa", "run-events.expired", 3),
        ("nasa", "run-events.expired", 3),
        ("nasa", "run-events.expired", 1),
        ("nasa", "runs.expired", 2),
        ("nasa", "runs.expired", 1),
    ]
    assert await left(admin) == (2, 2)
    assert told.is_set()


async def test_each_agency_keeps_as_long_as_the_registry_says(
    checkpoint_database: Database, admin: Any, tmp_path: Path
) -> None:
    """Lines of 100 days go where 90 are kept and stay where 200 are; of open runs nothing goes."""
    agencies = [DevelopmentAgency("nasa", "NASA"), DevelopmentAgency("loc", "LOC")]
    path = write_development_registry(tmp_path, agencies)
    text = yaml.safe_load(path.read_text())
    next(entry for entry in text["agencies"] if entry["id"] == "loc")["retention"] = {
        "events_keep_days": 200, "checkpoints_keep_days": 300
    }  # fmt: skip
    path.write_text(yaml.safe_dump(text))
    retentions = Retentions(path, timedelta(days=1), timedelta(days=1))
    for number, agency in enumerate(("nasa", "loc", "esa")):
        await add_run(admin, agency, number, "FAILED", 5, events=2)
    await add_run(admin, "nasa", 9, "RUNNING", -5, events=2)
    gone = await Expiry(checkpoint_database, PostgresExpiry, Keeping(retentions.events), Signal()).make_pass()

    assert gone == {"run-events.expired": 4, "runs.expired": 0}
    assert await facts(admin) == [("esa", "run-events.expired", 2), ("nasa", "run-events.expired", 2)]
    assert await left(admin) == (4, 4)


async def test_nothing_due_says_nothing(checkpoint_database: Database, admin: Any) -> None:
    """No fact, no signal: an idle pass leaves no trace in anybody's log."""
    await add_run(admin, "nasa", 1, "FAILED", 5)
    committed = Signal()
    told = committed.subscribe()
    await Expiry(checkpoint_database, PostgresExpiry, KEEPING, committed).make_pass()

    assert (await facts(admin), told.is_set(), await left(admin)) == ([], False, (1, 0))


async def test_processes_at_once_say_each_row_once(checkpoint_database: Database, admin: Any) -> None:
    """Four passes at once: what the facts count is what went, whoever did it."""
    await add_run(admin, "nasa", 1, "FAILED", 5, events=40)
    passes = [Expiry(checkpoint_database, PostgresExpiry, KEEPING, Signal()) for _ in range(4)]
    gone = await asyncio.gather(*(one.make_pass() for one in passes))
    await passes[0].make_pass()

    assert sum(one["run-events.expired"] for one in gone) <= 40
    assert sum(count for _, _, count in await facts(admin)) == 40
    assert await left(admin) == (1, 0)


async def test_an_outage_only_delays(settings_for: Any, admin: Any) -> None:
    """A table stays locked beyond the lock time-out: the loop goes on, and after the next pause the row goes."""
    await add_run(admin, "nasa", 1, "FAILED", -1)
    impatient = await Database.open(settings_for("flux_checkpoint").model_copy(update={"lock_timeout_ms": 100}), "test")
    lock = admin.transaction()
    seen: list[tuple[int, int]] = []

    async def pause() -> bool:
        if not seen:
            await lock.start()
            await admin.execute("LOCK TABLE flux.runs IN ACCESS EXCLUSIVE MODE")
        elif len(seen) == 1:
            await lock.rollback()
        seen.append(await left(admin))
        return len(seen) < 3

    await Expiry(impatient, PostgresExpiry, KEEPING, Signal()).run(pause)
    await impatient.close()

    assert seen == [(1, 0), (1, 0), (0, 0)]
    assert await facts(admin) == [("nasa", "runs.expired", 1)]
