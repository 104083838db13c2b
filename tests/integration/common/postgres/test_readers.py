"""What an agency's own reader can do (strict mode): whatever a statement sets, it sees its agency, and holds nobody up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from flux_common.postgres.migrations import create_roles
from flux_devkit.plugin import Database as OneDatabase

from .matrix import STRICT

INJECTED = [
    "SELECT set_config('flux.current_agency_id', 'loc', true)",
    "SELECT set_config('flux.current_agency_id', 'loc', false)",
    "SET flux.current_agency_id = 'loc'",
]
READING = [
    *(
        f"SELECT * FROM flux.{t}"
        for t in ("runs", "checkpoints", "checkpoint_events", "checkpoint_hashes", "audit_log")
    ),
    "SELECT * FROM flux.run_summary('loc', '00000000-0000-0000-0000-000000000001')",
    "SELECT * FROM flux.verify_chain('loc', '00000000-0000-0000-0000-000000000001')",
    "SELECT * FROM flux.explain_position('loc', 'runs', 0, 0)",
    "SELECT * FROM flux.a_view",
    "SELECT r.* FROM (SELECT set_config('flux.current_agency_id', 'loc', true)) AS one, flux.runs r",
]


@pytest.fixture
async def strict_reader(database: OneDatabase, tables: Any, admin: Any) -> AsyncIterator[Any]:
    """nasa's own reader, in a database with a view."""
    await admin.execute(
        "CREATE VIEW flux.a_view WITH (security_invoker) AS SELECT * FROM flux.runs;"
        " GRANT SELECT ON flux.a_view TO flux_reader;"
        " UPDATE flux.checkpoint_events SET source = 'runs', kafka_partition = 0, kafka_offset = 0;"
        " UPDATE flux.runs SET partitions = 1;"
        " INSERT INTO flux.checkpoints (agency_id, run_id, kind, number, state)"
        " SELECT agency_id, run_id, 'extract', 0, 'PENDING' FROM flux.runs"
    )
    connection = await asyncpg.connect(database.dsn_as(STRICT, "for-tests-only"))
    yield connection
    await connection.close()


@pytest.mark.parametrize("injected", INJECTED)
async def test_an_agencys_reader_cannot_choose_another_agency(strict_reader: Any, injected: str) -> None:
    """Whatever an injected statement sets: tables, functions and views show nothing of others."""
    async with strict_reader.transaction():
        await strict_reader.execute(injected)
        for query in READING:
            assert await strict_reader.fetch(query) == [], query


async def test_an_agencys_reader_cannot_become_another(strict_reader: Any) -> None:
    """The login itself cannot be changed by a statement; nor the password of the shared reader, to log in as it."""
    for statement in (
        "SET SESSION AUTHORIZATION flux_reader",
        "SET ROLE flux_reader_loc",
        "SET ROLE flux_owner",
        "SET ROLE flux_reader",
        "SELECT set_config('role', 'flux_reader', false)",
        "ALTER ROLE flux_reader PASSWORD 'mine'",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await strict_reader.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT pg_advisory_lock(hashtextextended('flux_ingest/loc', 0))",
        "SELECT pg_try_advisory_xact_lock_shared(1, 2)",
        "SELECT lo_create(0)",
        "SELECT lo_from_bytea(0, 'x')",
        "BEGIN; LOCK TABLE flux.runs IN ROW SHARE MODE",
        "SELECT * FROM flux.runs FOR KEY SHARE",
        "CREATE TEMP TABLE mine (n int)",
        "SET temp_file_limit = -1",
    ],
)
async def test_a_reader_cannot_hold_others_up(database: OneDatabase, strict_reader: Any, statement: str) -> None:
    """It has no locks that a service waits for, and nowhere to write: the lock of another agency's lanes least of all.

    How much it may take of what all share is tried in test_reader_limits.py.
    """
    await create_roles(database.dsn, {})  # a copy of a template is not closed to others
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await strict_reader.execute(statement)


async def test_what_the_shared_reader_could_choose_is_there(strict_reader: Any, matrix_of: Any) -> None:
    """The statements above show something to who may see it: nasa's reader its own, the shared one what it chose."""
    shared = (await matrix_of("flux_reader")).connection
    await shared.execute(INJECTED[1])
    await strict_reader.execute("SET flux.current_agency_id = 'nasa'")
    chosen = [len(await shared.fetch(query)) for query in READING]
    own = [len(await strict_reader.fetch(query.replace("loc", "nasa"))) for query in READING]
    await shared.close()

    assert all(chosen)
    assert own == chosen


async def test_a_login_that_is_no_reader_of_ours_sees_nothing(database: OneDatabase, admin: Any, tables: Any) -> None:
    """Whoever is made a member of flux_reader under another name may read the tables, and finds them empty."""
    trial = admin.transaction()
    await trial.start()
    await admin.execute("CREATE ROLE analyst_of_this_test LOGIN IN ROLE flux_reader")
    await admin.execute("SET SESSION AUTHORIZATION analyst_of_this_test")
    await admin.execute("SET flux.current_agency_id = 'nasa'")
    seen = await admin.fetch("SELECT * FROM flux.runs")
    await trial.rollback()

    assert seen == []


async def test_the_client_reads_by_an_agencys_own_login(open_as: Any, tables: Any) -> None:
    """`Database.transaction` works as it does for the shared reader; another agency is empty, whoever injects what."""
    reader = await open_as(STRICT)
    async with reader.transaction(["nasa"], reader=True) as connection:
        own = {row[0] for row in await connection.fetch("SELECT agency_id FROM flux.runs")}
        await connection.fetchval("SELECT set_config('flux.current_agency_id', 'loc', true)")
        injected = await connection.fetch("SELECT agency_id FROM flux.runs")
    async with reader.transaction(["loc"], reader=True) as connection:
        other = await connection.fetch("SELECT agency_id FROM flux.runs")

    assert (own, injected, other) == ({"nasa"}, [], [])
