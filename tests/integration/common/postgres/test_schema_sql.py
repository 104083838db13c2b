"""Both roads end in the same database: the migrations one after the other, and `schema.sql` at once."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from importlib import resources
from typing import Any

import asyncpg
import pytest

from flux_common.postgres.catalogue import DECLARED, Declaration, look, things_in, written
from flux_common.postgres.migrations import create_roles, migrate
from flux_common.postgres.queries import Queries
from flux_devkit.plugin import Database as OneDatabase
from flux_devkit.plugin import PostgresServer

FILES = resources.files("flux_common.postgres")
CATALOGUE = Queries.load("flux_common.postgres", "catalogue.sql")
# Everything that a schema can hold; who is who in the cluster and in this database is the roles' business.
KINDS = ["schemas", "relations", "columns", "constraints", "indexes", "policies", "functions", "triggers",
         "default_privileges", "seeds"]  # fmt: skip
SCHEMA = FILES.joinpath("schema.sql").read_text()
REMEDY = "run `make schema-sql` and look at what it changed"


@pytest.fixture
async def at_once(postgres_server: PostgresServer, database_template: str) -> AsyncIterator[OneDatabase]:
    """A database made by `schema.sql`."""
    made = postgres_server.create_database(f"schema_{secrets.token_hex(4)}")
    await create_roles(made.dsn, {})
    connection = await asyncpg.connect(made.dsn)
    await connection.execute("SET ROLE flux_owner")
    await connection.execute(SCHEMA)
    await connection.close()
    yield made
    postgres_server.drop_database(made.name)


async def described(connection: Any, kind: str) -> list[dict[str, Any]]:
    """Return what the catalogues say of one kind of thing."""
    await connection.execute("SET search_path = pg_catalog")
    return [dict(row) for row in await connection.fetch(CATALOGUE[kind])]


async def test_both_roads_end_in_the_same_database(at_once: OneDatabase, admin: Any) -> None:
    """Tables, columns, types, defaults, constraints, indexes, policies, grants, functions, comments, first rows: equal."""
    connection = await asyncpg.connect(at_once.dsn)
    by_schema = {kind: await described(connection, kind) for kind in KINDS}
    await connection.close()
    by_migrations = {kind: await described(admin, kind) for kind in KINDS}
    differ = [kind for kind in KINDS if by_schema[kind] != by_migrations[kind]]

    assert differ == [], REMEDY
    assert all(by_migrations[kind] for kind in KINDS if kind != "triggers")


async def test_migrations_go_on_from_schema_sql(at_once: OneDatabase) -> None:
    """A database that was made at once is known to have every migration."""
    assert await migrate(at_once.dsn_as("flux_migrate", "for-tests-only")) == [], REMEDY


async def test_the_declaration_is_of_this_release(admin: Any, database: OneDatabase) -> None:
    """What `flux-etl doctor` compares with is what the migrations make, roles included."""
    await create_roles(database.dsn, {})
    declared = Declaration(admin.get_server_version().major, things_in(await look(admin)))

    assert written(declared) == FILES.joinpath(DECLARED).read_text(), REMEDY


MUTANTS = [
    ("columns", "ALTER TABLE flux.runs ALTER COLUMN read SET DEFAULT 1"),
    ("columns", "COMMENT ON COLUMN flux.runs.read IS 'x'"),
    ("constraints", "ALTER TABLE flux_audit.ledger DROP CONSTRAINT ledger_counts_check"),
    ("indexes", "CREATE INDEX more ON flux.runs (agency_id, code)"),
    ("policies", "ALTER POLICY reader_agency ON flux.runs USING (true)"),
    ("relations", "GRANT DELETE ON flux.audit_log TO flux_audit"),
    ("relations", "COMMENT ON TABLE flux.runs IS 'x'"),
    ("relations", "ALTER TABLE flux.runs NO FORCE ROW LEVEL SECURITY"),
    ("functions", "ALTER FUNCTION flux.expire_runs SECURITY DEFINER"),
    ("functions", "COMMENT ON FUNCTION flux.expire_runs IS 'x'"),
    ("schemas", "GRANT USAGE ON SCHEMA flux_audit TO flux_ingest"),
    ("triggers", "CREATE TRIGGER t BEFORE UPDATE ON flux.runs EXECUTE FUNCTION suppress_redundant_updates_trigger()"),
    ("default_privileges", "ALTER DEFAULT PRIVILEGES FOR ROLE flux_owner GRANT SELECT ON TABLES TO flux_reader"),
    ("seeds", "DELETE FROM flux_audit.relay_leases WHERE shard = 2"),
]


async def test_a_difference_is_seen(admin: Any) -> None:
    """The comparison can fail: a change of each kind of thing is one."""
    unseen: list[str] = []
    for kind, mutant in MUTANTS:
        before = await described(admin, kind)
        mutation = admin.transaction()
        await mutation.start()
        await admin.execute(mutant)
        if await described(admin, kind) == before:
            unseen.append(mutant)
        await mutation.rollback()

    assert unseen == []
    assert {kind for kind, _ in MUTANTS} == set(KINDS)
