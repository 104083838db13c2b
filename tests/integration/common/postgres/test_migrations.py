"""Migrations on a real PostgreSQL: each file once, in order, whoever runs them how often."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import FluxError, InvariantBroken, Unavailable
from flux_common.postgres import migrations as room
from flux_common.postgres.database import Database
from flux_common.postgres.migrations import LOGIN_ROLES, Migration, create_roles, migrate, migrations, require_schema
from flux_common.settings import PostgresSettings
from flux_devkit.plugin import Database as OneDatabase
from flux_devkit.plugin import PostgresServer

PASSWORD = "for-tests-only"
NAMES = [migration.name for migration in migrations()]


@pytest.fixture
async def migrator(database: OneDatabase) -> str:
    """flux_migrate's DSN of a migrated database, opened to the roles (a copy of a template is not)."""
    await create_roles(database.dsn, {})
    return database.dsn_as("flux_migrate", PASSWORD)


@pytest.fixture
async def empty(postgres_server: PostgresServer, database_template: str) -> AsyncIterator[OneDatabase]:
    """A database of a cluster that has the roles, open to them, without a schema."""
    made = postgres_server.create_database(f"empty_{secrets.token_hex(4)}")
    await create_roles(made.dsn, {})
    yield made
    postgres_server.drop_database(made.name)


@pytest.fixture
def with_more(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Migration]:
    """Let the release have one migration more, of this text."""
    known = migrations()

    def add(text: str) -> Migration:
        more = Migration(len(known) + 1, f"{len(known) + 1:04}_pre_more.sql", text)
        monkeypatch.setattr(room, "migrations", lambda: [*known, more])
        return more

    return add


@asynccontextmanager
async def service_on(database: OneDatabase, password_file: Any) -> AsyncIterator[Database]:
    """Open checkpoint's login on a database."""
    dsn = database.dsn_as("flux_checkpoint", "").replace("flux_checkpoint:@", "flux_checkpoint@")
    opened = await Database.open(PostgresSettings(dsn=dsn, password_file=password_file), "test")
    try:
        yield opened
    finally:
        await opened.close()


async def test_two_at_once_apply_each_file_once(empty: OneDatabase) -> None:
    """They wait for each other: together they apply every file, none twice, in order; a third has nothing to do."""
    dsn = empty.dsn_as("flux_migrate", PASSWORD)
    applied = await asyncio.gather(*(migrate(dsn) for _ in range(3)))
    connection = await asyncpg.connect(empty.dsn)
    rows = await connection.fetch("SELECT name FROM flux_meta.migrations ORDER BY version")
    await connection.close()

    assert sorted(name for names in applied for name in names) == NAMES
    assert [row["name"] for row in rows] == NAMES
    assert await migrate(dsn) == []


async def test_a_file_that_changed_after_it_was_applied_is_refused(migrator: str, admin: Any) -> None:
    """The database has another text than the release: nobody guesses which is right."""
    await admin.execute("UPDATE flux_meta.migrations SET sha256 = repeat('0', 64) WHERE version = 2")
    with pytest.raises(InvariantBroken, match=NAMES[1]):
        await migrate(migrator)


async def test_a_file_is_not_applied_behind_later_ones(migrator: str, admin: Any) -> None:
    """A database that has 1 and 3 was given another order than files have: refused, and nothing is applied."""
    await admin.execute("DELETE FROM flux_meta.migrations WHERE version = 2")
    with pytest.raises(InvariantBroken, match=NAMES[1]):
        await migrate(migrator)

    assert await admin.fetchval("SELECT count(*) FROM flux_meta.migrations WHERE version = 2") == 0


async def test_a_migration_that_fails_leaves_nothing(migrator: str, admin: Any, with_more: Any) -> None:
    """It is one transaction: neither its first half nor its name is kept, and mended it goes in."""
    with_more("SET LOCAL lock_timeout = '5s'; CREATE TABLE flux.half (n int); SELECT 1 / 0")
    with pytest.raises(FluxError):
        await migrate(migrator)
    half = await admin.fetchval("SELECT to_regclass('flux.half')")
    more = with_more("SET LOCAL lock_timeout = '5s'; CREATE TABLE flux.half (n int)")

    assert half is None
    assert await migrate(migrator) == [more.name]


async def test_a_locked_table_is_an_outage(migrator: str, admin: Any, with_more: Any) -> None:
    """The services' work goes before: the migration gives up after its lock time-out, and can be run again."""
    more = with_more("SET LOCAL lock_timeout = '100ms'; ALTER TABLE flux.runs ADD COLUMN more int")
    async with admin.transaction():
        await admin.execute("LOCK TABLE flux.runs IN ACCESS SHARE MODE")
        with pytest.raises(Unavailable):
            await migrate(migrator)

    assert await migrate(migrator) == [more.name]


async def test_what_migrations_make_is_the_owners(migrator: str, admin: Any, with_more: Any) -> None:
    """flux_migrate becomes the owner for it; what a later file makes is nobody else's either, functions included."""
    with_more(
        "SET LOCAL lock_timeout = '5s'; CREATE TABLE flux.more (n int);"
        " CREATE FUNCTION flux.more() RETURNS int LANGUAGE sql AS 'SELECT 1'"
    )
    await migrate(migrator)
    owners = await admin.fetch(
        "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'flux'::regnamespace"
    )

    assert [tuple(row) for row in owners] == [("flux_owner",)]
    assert not await admin.fetchval("SELECT has_function_privilege('flux_reader', 'flux.more()', 'EXECUTE')")


async def test_a_service_refuses_a_schema_that_is_too_old(
    empty: OneDatabase, database: OneDatabase, admin: Any, password_file: Any
) -> None:
    """No schema at all, or one file short: SCHEMA_OUTDATED. The release's own or a newer one is enough."""
    async with service_on(empty, password_file) as service:
        with pytest.raises(FluxError) as nothing:
            await require_schema(service)
    async with service_on(database, password_file) as service:
        await require_schema(service)
        await require_schema(service, len(NAMES) - 1)
        await admin.execute("DELETE FROM flux_meta.migrations WHERE version = $1", len(NAMES))
        with pytest.raises(FluxError) as short:
            await require_schema(service)

    assert [nothing.value.code, short.value.code] == [Code.SCHEMA_OUTDATED] * 2


async def test_roles_are_put_right(empty: OneDatabase, postgres_server: PostgresServer) -> None:
    """Roles that somebody gave too much lose it again when `roles` runs; the time-outs come back, too."""
    connection = await asyncpg.connect(empty.dsn)
    await connection.execute("ALTER ROLE flux_reader BYPASSRLS CREATEROLE CREATEDB")
    await connection.execute("ALTER ROLE flux_reader RESET ALL")
    await create_roles(empty.dsn, {})
    row = await connection.fetchrow(
        "SELECT rolbypassrls OR rolcreaterole OR rolcreatedb OR rolsuper OR rolreplication, rolconfig FROM pg_roles"
        " WHERE rolname = 'flux_reader'"
    )
    await connection.close()
    assert row is not None
    too_much, configured = row

    assert not too_much
    assert {line.split("=")[0] for line in configured} >= {
        "idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout", "tcp_user_timeout", "search_path"
    }  # fmt: skip


async def test_nobody_else_comes_in(database: OneDatabase, admin: Any) -> None:
    """A Flux database is closed to every other login of the cluster."""
    await create_roles(database.dsn, {})
    await admin.execute("CREATE ROLE stranger_of_this_test LOGIN")
    try:
        may = await admin.fetchval(
            "SELECT has_database_privilege('stranger_of_this_test', current_database(), 'CONNECT, CREATE, TEMP')"
        )
        flux = [
            await admin.fetchval("SELECT has_database_privilege($1, current_database(), 'CONNECT')", role)
            for role in LOGIN_ROLES
        ]
    finally:
        await admin.execute("DROP ROLE stranger_of_this_test")

    assert not may
    assert all(flux)
