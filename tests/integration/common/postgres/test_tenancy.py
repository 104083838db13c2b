"""Who can do what to whose rows: roles x tables x statements x settings, each cell tried, against the table of matrix.py.

The last test removes each policy, each grant and each flag of row-level security that the catalogues have, one by one: the
matrix and `flux-etl doctor` must see it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from flux_common.postgres.catalogue import declaration, look, things_in
from flux_common.postgres.doctor import compared
from flux_common.postgres.migrations import LOGIN_ROLES, create_roles
from flux_devkit.plugin import Database as OneDatabase

from .matrix import STRICT, Matrix, expected_of


@pytest.mark.parametrize("role", [*(role for role in LOGIN_ROLES if role != "flux_migrate"), STRICT])
async def test_a_role_reaches_what_is_its_own_and_nothing_else(matrix_of: Any, tables: Any, role: str) -> None:
    """Every cell is as expected: of 37 tables, six statements and five settings."""
    matrix = await matrix_of(role)
    wrong = {
        (table, *cell): (outcome, matrix.foreseen(table)[cell])
        for table in tables
        for cell, outcome in (await matrix.measured(table)).items()
        if outcome != matrix.foreseen(table)[cell]
    }
    await matrix.connection.close()

    assert wrong == {}
    assert len(tables) == 37


async def test_who_migrates_sees_nobodys_rows(matrix_of: Any, admin: Any) -> None:
    """flux_migrate has the owner's rights, and FORCE makes row-level security hold for owners: no policy, no row."""
    matrix = await matrix_of("flux_migrate")
    query = "SELECT oid::regclass::text FROM pg_class WHERE relrowsecurity AND relkind = 'r' ORDER BY 1"
    secured = [row[0] for row in await admin.fetch(query)]
    seen = {
        table: {await matrix.cell(table, statement, setting) for setting in matrix.settings().values()}
        for table in secured
        for statement in ("SELECT", "UPDATE", "DELETE")
    }
    await matrix.connection.close()

    assert seen == {table: {"nothing"} for table in secured}
    assert len(secured) == 13


MUTANTS = [
    ("flux_checkpoint", "flux.runs", "DROP POLICY service_batch ON flux.runs"),
    ("flux_checkpoint", "flux.checkpoints", "ALTER TABLE flux.checkpoints DISABLE ROW LEVEL SECURITY"),
    ("flux_checkpoint", "flux.checkpoint_events", "ALTER POLICY service_batch ON flux.checkpoint_events USING (true)"),
    ("flux_ingest", "flux_ingest.requests", "ALTER POLICY service_batch ON flux_ingest.requests WITH CHECK (true)"),
    ("flux_audit", "flux.audit_log", "GRANT DELETE ON flux.audit_log TO flux_audit"),
    ("flux_audit", "flux.audit_log", "GRANT TRUNCATE ON flux.audit_log TO flux_audit"),
    ("flux_checkpoint", "flux.runs",
     "CREATE POLICY more ON flux.runs FOR SELECT TO flux_checkpoint USING (state = 'ADMITTED')"),
    ("flux_reader", "flux.checkpoints", "GRANT UPDATE ON flux.checkpoints TO flux_reader"),
    ("flux_reader", "flux.audit_log", "ALTER POLICY reader_agency ON flux.audit_log USING (agency_id = ANY"
     " (string_to_array(current_setting('flux.current_agency_ids', true), ',')))"),
    ("flux_ingest", "flux_audit.lanes", "GRANT USAGE ON SCHEMA flux_audit TO flux_ingest; "
     "GRANT SELECT ON flux_audit.lanes TO flux_ingest"),
    ("flux_audit", "flux_audit.outbox", "ALTER TABLE flux_audit.outbox ENABLE ROW LEVEL SECURITY"),
]  # fmt: skip


async def test_a_mutant_is_seen(matrix_of: Any, admin: Any) -> None:
    """The matrix can fail: a dropped policy, a policy that lets through, a grant too many, each shows in its cells."""
    unseen: list[str] = []
    for role, table, mutant in MUTANTS:
        matrix = await matrix_of(role)
        before = await matrix.measured(table)
        await admin.execute(mutant)
        if before == await matrix.measured(table):
            unseen.append(mutant)
        await matrix.connection.close()

    assert unseen == []


async def test_without_force_who_migrates_sees_everything(matrix_of: Any, admin: Any) -> None:
    """The mutant of FORCE: the test above would see it."""
    matrix = await matrix_of("flux_migrate")
    await admin.execute("ALTER TABLE flux.runs NO FORCE ROW LEVEL SECURITY")
    seen = await matrix.cell("flux.runs", "SELECT", None)
    await matrix.connection.close()

    assert seen == "esa,loc,nasa"


class Removal(NamedTuple):
    """One thing less: the statement, the kind that the doctor looks at, and whose cells of which table change."""

    statement: str
    kind: str
    role: str
    table: str


def removals(things: Any) -> Iterator[Removal]:
    """Yield the removal of every policy, of every flag of row-level security, and of every grant that there is."""
    served = {}
    for name, row in things["policies"].items():
        table, _, policy = name.rpartition(".")
        role = row["roles"][0] if row["permissive"] else STRICT
        served.setdefault(table, role)
        yield Removal(f"DROP POLICY {policy} ON {table}", "policies", role, table)
    for table, row in things["relations"].items():
        if row["rls"]:
            yield Removal(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY", "relations", served[table], table)
        if row["forced"]:
            yield Removal(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY", "relations", "flux_migrate", table)
    for grant in things["grants"]:
        privilege, name, role = re.fullmatch(r"(\w+) on (.*) to (\w+)", grant).groups()  # type: ignore[union-attr]
        sort = {"USAGE": "SCHEMA", "EXECUTE": "FUNCTION"}.get(privilege, "TABLE")
        used = (
            t for t in things["relations"] if t.startswith(f"{name}.") and set(expected_of(role, t).values()) != {"-"}
        )
        table = next(used, name) if sort == "SCHEMA" else name
        yield Removal(f"REVOKE {privilege} ON {sort} {name} FROM {role}", "grants", role, table)


@pytest.fixture
async def removing(admin: Any, database: OneDatabase, tables: Any) -> Any:
    """Make a removal in a transaction that is taken back; say whether the doctor and the matrix saw it."""
    await create_roles(database.dsn, {})

    async def remove(removal: Removal) -> tuple[bool, bool]:
        trial = admin.transaction()
        await trial.start()
        await admin.execute(removal.statement)
        seen = things_in(await look(admin, [removal.kind]))
        told = any(compared(seen, declaration(), 18))
        await admin.execute(f"SET SESSION AUTHORIZATION {removal.role}")
        matrix = Matrix(admin, removal.role, tables)
        if removal.role == "flux_migrate":
            red = await matrix.cell(removal.table, "SELECT", None) != "nothing"
        else:
            red = removal.table in tables and await matrix.measured(removal.table) != matrix.foreseen(removal.table)
        await trial.rollback()
        return told, red

    return remove


async def test_every_single_removal_is_seen(removing: Any, admin: Any) -> None:
    """Whatever is taken away, one policy, one flag, one grant: the doctor names it, and a cell of the matrix is wrong."""
    things = things_in(await look(admin))
    assert list(compared(things, declaration(), 18)) == []
    every = list(removals(things))
    found = {removal: await removing(removal) for removal in every}
    unseen = [removal.statement for removal, (_, red) in found.items() if not red]
    # No cell asks for functions or for the table of migrations; ingest has a way into schema flux, and nothing in it.
    beside = ["EXECUTE", "flux_meta", "USAGE ON SCHEMA flux FROM flux_ingest"]

    assert [removal.statement for removal, (told, _) in found.items() if not told] == []
    assert [statement for statement in unseen if not any(words in statement for words in beside)] == []
    assert len(every) >= 150
    assert list(compared(things_in(await look(admin)), declaration(), 18)) == []
