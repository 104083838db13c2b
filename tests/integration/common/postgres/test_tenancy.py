"""Who can do what to whose rows: roles x tables x statements x settings, each cell tried, against a table of what is expected.

In a cell, `own` is done on the rows of the transaction's agencies and on nobody else's, whatever the statement says; `all`
is done (machinery has no tenants); `-` is refused by the grants. Nothing else is legal, and an unset or empty setting, or
the setting of the other kind of role, is nobody's. An agency's own reader (strict mode) sees its agency under every setting
that lets it see anything.

The last tests remove each policy, each grant and each flag of row-level security that the catalogues have, one by one: the
matrix and `flux-etl doctor` must see it.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest

from flux_common.postgres.catalogue import declaration, look, things_in
from flux_common.postgres.doctor import compared
from flux_common.postgres.migrations import LOGIN_ROLES, create_roles
from flux_common.postgres.queries import Queries
from flux_devkit.plugin import Database as OneDatabase

ROWS = Queries.parse(Path(__file__).with_name("tenancy_rows.sql").read_text())["rows"]
STATEMENTS = ("SELECT", "INSERT", "UPDATE", "MOVE", "DELETE", "TRUNCATE")
EXPECTED = """
role             table                          SELECT INSERT UPDATE MOVE DELETE TRUNCATE
flux_checkpoint  flux.runs                      own    own    own    own  own    -
flux_checkpoint  flux.checkpoints               own    own    own    own  own    -
flux_checkpoint  flux.checkpoint_events         own    own    -      -    own    -
flux_checkpoint  flux.checkpoint_hashes         own    own    -      -    own    -
flux_audit       flux.audit_log                 own    own    -      -    -      -
flux_reader      flux.runs                      own    -      -      -    -      -
flux_reader      flux.checkpoints               own    -      -      -    -      -
flux_reader      flux.checkpoint_events         own    -      -      -    -      -
flux_reader      flux.checkpoint_hashes         own    -      -      -    -      -
flux_reader      flux.audit_log                 own    -      -      -    -      -
flux_reader_nasa flux.runs                      own    -      -      -    -      -
flux_reader_nasa flux.checkpoints               own    -      -      -    -      -
flux_reader_nasa flux.checkpoint_events         own    -      -      -    -      -
flux_reader_nasa flux.checkpoint_hashes         own    -      -      -    -      -
flux_reader_nasa flux.audit_log                 own    -      -      -    -      -
flux_ingest      flux_ingest.requests           own    own    -      -    -      -
flux_ingest      flux_ingest.commands           own    own    -      -    -      -
flux_ingest      flux_ingest.rejections         own    own    -      -    -      -
flux_ingest      flux_ingest.token_uses         own    own    -      -    own    -
flux_ingest      flux_ingest.refusals           own    own    own    own  own    -
flux_ingest      flux_ingest.floods             own    own    -      -    -      -
flux_audit       flux_audit.tree_heads          own    own    own    own  -      -
flux_audit       flux_audit.nodes               own    own    -      -    -      -
flux_checkpoint  flux_checkpoint.agenda         all    all    all    all  all    -
flux_checkpoint  flux_checkpoint.agencies       all    all    -      -    -      -
flux_checkpoint  flux_checkpoint.dispatcher_leases all -      all    all  -      -
*                *.lanes                        all    all    all    all  -      -
*                *.ledger                       all    all    -      -    -      -
*                *.ledger_exceptions            all    all    -      -    -      -
*                *.dead_letters                 all    all    -      -    -      -
*                *.outbox                       all    all    all    all  all    -
*                *.outbox_parked                all    all    -      -    all    -
*                *.relay_leases                 all    -      all    all  -      -
"""
# What makes a new row of a copied one.
VARIED: dict[str, dict[str, Any]] = {
    "runs": {"run_id": "00000000-0000-0000-0000-000000000002", "request_id": "r-2"},
    "audit_log": {"seq": 7, "event_id": "00000000-0000-0000-0000-000000000007"},
    "floods": {"last_offset": 7, "offsets": "{[7,8)}"},
    "lanes": {"kafka_partition": 7},
    "ledger": {"from_offset": 7, "to_offset": 8},
    "ledger_exceptions": {"first_offset": 7, "last_offset": 7},
    "dead_letters": {"kafka_offset": 7},
    "outbox_parked": {"id": 7},
    "relay_leases": {"shard": 7},
    "dispatcher_leases": {"shard": 7},
}
STRICT = "flux_reader_nasa"
LIST, ONE = "flux.current_agency_ids", "flux.current_agency_id"
Cells = dict[tuple[str, str], str]


def expected_of(role: str, table: str) -> dict[str, str]:
    """Return the line of the table for a role and a table: word by statement; `-` where there is no line."""
    for line in EXPECTED.strip().splitlines()[1:]:
        named_role, named_table, *words = line.split()
        if named_role == "*":
            named_role, named_table = role, named_table.replace("*", role)
        if (named_role, named_table) == (role, table) and role != "flux_migrate":
            return dict(zip(STATEMENTS, words, strict=True))
    return dict.fromkeys(STATEMENTS, "-")


class Matrix:
    """One role's connection, and what it can do."""

    def __init__(self, connection: Any, role: str, tables: dict[str, dict[str, Any] | None]) -> None:
        self.connection, self.role, self.tables = connection, role, tables

    def settings(self) -> dict[str, tuple[str, str] | None]:
        """Return the settings to try: esa's and nasa's, loc's, empty, none, and that of the other kind of role."""
        mine, others = (ONE, LIST) if self.role.startswith("flux_reader") else (LIST, ONE)
        own = "nasa" if mine == ONE else "esa,nasa"
        return {"own": (mine, own), "other": (mine, "loc"), "empty": (mine, ""), "unset": None, "forged": (others, own)}

    async def cell(self, table: str, statement: str, setting: tuple[str, str] | None) -> str:
        """Try one statement and take it back; say what became of it."""
        trial = self.connection.transaction()
        await trial.start()
        try:
            if setting is not None:
                await self.connection.fetchval("SELECT set_config($1, $2, true)", *setting)
            return await self._tried(table, statement)
        except asyncpg.InsufficientPrivilegeError as problem:
            return "refused" if "row-level security" in str(problem) else "denied"
        except asyncpg.UniqueViolationError:  # two rows that both became oss's
            return "oss" if statement == "MOVE" else "done"
        finally:
            await trial.rollback()

    async def _tried(self, table: str, statement: str) -> str:
        row = self.tables[table] or {}
        tenant = "agency_id" if "agency_id" in row else "'-'"
        match statement:
            case "SELECT":
                touched = await self.connection.fetch(f"SELECT DISTINCT {tenant} FROM {table}")
            case "INSERT":
                names = ", ".join(row)
                query = f"INSERT INTO {table} ({names}) SELECT {names} FROM jsonb_populate_record(NULL::{table}, $1)"
                await self.connection.execute(query, json.dumps(row))
                return "done"
            case "UPDATE":
                column = next(iter(row))
                touched = await self.connection.fetch(f"UPDATE {table} SET {column} = {column} RETURNING {tenant}")
            case "MOVE":
                column, value = ("agency_id", "'oss'") if "agency_id" in row else (next(iter(row)),) * 2
                touched = await self.connection.fetch(f"UPDATE {table} SET {column} = {value} RETURNING {tenant}")
            case "DELETE":
                touched = await self.connection.fetch(f"DELETE FROM {table} RETURNING {tenant}")
            case _:
                await self.connection.execute(f"TRUNCATE {table} CASCADE")
                return "done"
        agencies = {row[0] for row in touched}
        return ",".join(sorted(agencies)) or "nothing"

    async def measured(self, table: str) -> Cells:
        """Try every statement under every setting."""
        settings = self.settings()
        return {
            (statement, name): await self.cell(table, statement, setting)
            for statement in STATEMENTS
            for name, setting in settings.items()
        }

    def foreseen(self, table: str) -> Cells:
        """Say what should become of them."""
        return {
            (statement, name): self._foreseen(table, statement, word, name)
            for statement, word in expected_of(self.role, table).items()
            for name in self.settings()
        }

    def _foreseen(self, table: str, statement: str, word: str, setting: str) -> str:
        if word == "-":
            return "denied"
        if statement == "INSERT":
            return "done" if word == "all" or setting == "own" else "refused"
        if word == "all":
            tenants = {"outbox", "outbox_parked", "dead_letters"}
            alone = table.split(".")[1] in tenants
            rows = "nasa" if alone else "loc,nasa" if "agency_id" in (self.tables[table] or {}) else "-"
            return "oss" if statement == "MOVE" and rows != "-" else rows
        if setting in ("empty", "unset", "forged"):
            return "nothing"
        if statement == "MOVE":
            return "refused"
        if setting == "other" and self.role == STRICT:
            return "nothing"
        mine = "esa,nasa" if table == "flux.runs" and not self.role.startswith("flux_reader") else "nasa"
        return mine if setting == "own" else "loc"


@pytest.fixture
async def tables(admin: Any) -> dict[str, dict[str, Any] | None]:
    """Every table of Flux, and a row of esa's (or of nobody's) to insert: no column that the database makes."""
    await admin.execute(ROWS)
    names = await admin.fetch(
        "SELECT c.oid::regclass::text AS name, (SELECT array_agg(attname::text) FROM pg_attribute a"
        "  WHERE a.attrelid = c.oid AND attidentity = 'a') AS made"
        "  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname LIKE 'flux%' AND n.nspname <> 'flux_meta' AND c.relkind = 'r' ORDER BY 1"
    )
    found: dict[str, dict[str, Any] | None] = {}
    for name, made in names:
        row = json.loads(await admin.fetchval(f"SELECT to_jsonb(t)::text FROM {name} t LIMIT 1"))
        row |= {"agency_id": "esa"} if "agency_id" in row else {}
        row |= VARIED.get(name.split(".")[1], {})
        found[name] = {column: value for column, value in row.items() if column not in (made or [])}
    return found


@pytest.fixture
def matrix_of(database: OneDatabase, tables: Any) -> Any:
    """Open the matrix of a role."""

    async def opened(role: str) -> Matrix:
        return Matrix(await asyncpg.connect(database.dsn_as(role, "for-tests-only")), role, tables)

    return opened


@pytest.mark.parametrize("role", [*(role for role in LOGIN_ROLES if role != "flux_migrate"), STRICT])
async def test_a_role_reaches_what_is_its_own_and_nothing_else(matrix_of: Any, tables: Any, role: str) -> None:
    """Every cell is as expected: of 35 tables, six statements and five settings."""
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
    ],
)
async def test_a_reader_cannot_hold_others_up(strict_reader: Any, statement: str) -> None:
    """It has no locks that a service waits for, and nowhere to write: the lock of another agency's lanes least of all."""
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
