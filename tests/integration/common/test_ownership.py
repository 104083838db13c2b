"""Who owns state: each table has one writer, and no service reads another's. The grants say so; nothing else is trusted."""

from __future__ import annotations

import asyncpg
import pytest

from flux_common.postgres.migrations import LOGIN_ROLES
from flux_devkit.plugin import Database

SERVICES = ("ingest", "checkpoint", "audit")
SHARED_TABLES_OF = {
    "flux_ingest": set(),
    "flux_checkpoint": {"runs", "checkpoints", "checkpoint_events", "checkpoint_hashes"},
    "flux_audit": {"audit_log"},
}
WRITING = "INSERT, UPDATE, DELETE, TRUNCATE"

TABLES = """
SELECT n.nspname AS schema, c.relname AS name,
       has_schema_privilege($1, n.oid, 'USAGE') AND has_table_privilege($1, c.oid, 'SELECT') AS may_read,
       has_schema_privilege($1, n.oid, 'USAGE') AND has_table_privilege($1, c.oid, $2) AS may_write
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname LIKE 'flux%' AND c.relkind IN ('r', 'p', 'v', 'm')
"""


async def _reach(database: Database, role: str) -> tuple[set[str], set[str]]:
    """Return the tables that a role may read, and those that it may write, as `schema.table`."""
    connection = await asyncpg.connect(database.dsn)
    try:
        rows = await connection.fetch(TABLES, role, WRITING)
    finally:
        await connection.close()
    named = {f"{row['schema']}.{row['name']}": row for row in rows}
    return {t for t, row in named.items() if row["may_read"]}, {t for t, row in named.items() if row["may_write"]}


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_reaches_its_own_tables_and_no_others(database: Database, service: str) -> None:
    """A service's login reads and writes its own schema and its part of `flux`; of the rest it sees nothing."""
    role = f"flux_{service}"
    reads, writes = await _reach(database, role)
    shared = {f"flux.{table}" for table in SHARED_TABLES_OF[role]}

    assert {t for t in writes if not t.startswith(f"{role}.")} == shared
    assert {t for t in reads if not t.startswith(f"{role}.")} == shared | {"flux_meta.migrations"}
    assert any(t.startswith(f"{role}.") for t in writes)


async def test_every_table_of_flux_has_one_writer(database: Database) -> None:
    """The five shared tables are written by one service each; the reader's login writes nothing."""
    writers = {role: (await _reach(database, role))[1] for role in LOGIN_ROLES if role != "flux_migrate"}
    shared = [table for tables in writers.values() for table in tables if table.startswith("flux.")]

    assert sorted(shared) == sorted(f"flux.{t}" for tables in SHARED_TABLES_OF.values() for t in tables)
    assert writers["flux_reader"] == set()


async def test_transform_is_no_login(database: Database) -> None:
    """The service that decodes strangers' files has no role at all; the others are agencies' own readers."""
    connection = await asyncpg.connect(database.dsn)
    try:
        roles = {row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_roles")}
    finally:
        await connection.close()

    named = {role for role in roles if role.startswith("flux") and not role.startswith("flux_reader_")}
    assert named == {"flux_owner", *LOGIN_ROLES}


async def test_no_login_can_step_out_of_row_level_security(database: Database) -> None:
    """No login is a superuser, owns a table, or bypasses row-level security."""
    connection = await asyncpg.connect(database.dsn)
    try:
        rows = await connection.fetch(
            "SELECT rolname FROM pg_roles WHERE rolname LIKE 'flux%' AND (rolsuper OR rolbypassrls OR rolcreaterole)"
        )
        owners = await connection.fetch(
            "SELECT DISTINCT pg_get_userbyid(c.relowner) AS owner FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname LIKE 'flux%' AND c.relkind IN ('r', 'p')"
        )
    finally:
        await connection.close()

    assert [row["rolname"] for row in rows] == []
    assert [row["owner"] for row in owners] == ["flux_owner"]
