"""`flux-etl doctor` on a real database: nothing to say of a sound one, and each kind of drift by its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flux_client.cli.app import run
from flux_client.cli.exits import Exit
from flux_client.development import DevelopmentAgency, write_development_registry
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import FluxError
from flux_common.postgres import database as room
from flux_common.postgres.catalogue import declaration, look, things_in
from flux_common.postgres.database import Database, release_fault
from flux_common.postgres.doctor import MEANINGS, compared, examine
from flux_common.postgres.migrations import create_roles
from flux_devkit.plugin import Database as OneDatabase


@pytest.fixture
async def opened(database: OneDatabase) -> OneDatabase:
    """A database as `roles` and `migrate` leave it (a copy of a template is not closed to others)."""
    await create_roles(database.dsn, {})
    return database


# What somebody did, the kind of thing that shows it, what it is called, and a word of what is said.
DRIFTS = [
    ("ALTER TABLE flux.runs NO FORCE ROW LEVEL SECURITY", "relations", "flux.runs", "forced is no"),
    ("ALTER TABLE flux.runs DISABLE ROW LEVEL SECURITY", "relations", "flux.runs", "rls is no"),
    ("CREATE TABLE flux.more (n int)", "relations", "flux.more", "not declared"),
    ("CREATE TABLE flux.part () INHERITS (flux.runs)", "relations", "flux.part", "without row-level security"),
    ("CREATE VIEW flux.more AS SELECT * FROM flux.runs", "relations", "flux.more", "not declared"),
    ("ALTER TABLE flux.runs OWNER TO flux_migrate", "relations", "flux.runs", "owner is flux_migrate"),
    ("DROP POLICY reader_login ON flux.runs", "policies", "flux.runs.reader_login", "missing"),
    ("ALTER POLICY service_batch ON flux.runs USING (true)", "policies", "flux.runs.service_batch", "using is true"),
    ("CREATE POLICY p ON flux.runs TO flux_reader USING (true)", "policies", "flux.runs.p", "not declared"),
    ("GRANT DELETE ON flux.audit_log TO flux_audit", "grants", "DELETE on flux.audit_log to flux_audit", "not declared"),
    ("GRANT SELECT (state) ON flux.runs TO PUBLIC", "grants", "SELECT on flux.runs.state to PUBLIC", "not declared"),
    ("GRANT EXECUTE ON FUNCTION flux.run_summary TO PUBLIC", "grants",
     "EXECUTE on flux.run_summary(text,uuid) to PUBLIC", "not declared"),
    ("REVOKE INSERT ON flux.audit_log FROM flux_audit", "grants", "INSERT on flux.audit_log to flux_audit", "missing"),
    ("ALTER FUNCTION flux.run_summary SECURITY DEFINER", "functions", "flux.run_summary(text,uuid)", "definer is yes"),
    ("ALTER FUNCTION flux.run_summary RESET search_path", "functions", "flux.run_summary(text,uuid)", "settings is none"),
    ("CREATE FUNCTION flux.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "functions", "flux.f()", "not declared"),
    ("ALTER ROLE flux_audit BYPASSRLS", "roles", "flux_audit", "mighty is BYPASSRLS"),
    ("ALTER ROLE flux_owner LOGIN", "roles", "flux_owner", "login is yes"),
    ("GRANT flux_owner TO flux_ingest", "roles", "flux_ingest", "member_of is flux_owner"),
    ("GRANT flux_audit TO flux_reader_nasa", "roles", "flux_reader_nasa", "member_of is flux_audit, flux_reader"),
    ("ALTER ROLE flux_reader_nasa SUPERUSER", "roles", "flux_reader_nasa", "mighty is SUPERUSER"),
    ("ALTER ROLE flux_ingest SET lock_timeout = 0", "roles", "flux_ingest", "lock_timeout=0"),
    ("ALTER ROLE flux_reader_nasa CONNECTION LIMIT -1", "roles", "flux_reader_nasa", "connections is unlimited"),
    ("ALTER ROLE flux_reader_nasa SET temp_file_limit = -1", "roles", "flux_reader_nasa", "temp_file_limit=-1"),
    ("ALTER ROLE flux_reader RESET temp_file_limit", "roles", "flux_reader", "declared is idle"),
    ("CREATE ROLE flux_more", "roles", "flux_more", "not declared"),
    ("GRANT flux_reader TO flux_reader_nasa WITH SET TRUE", "members", "flux_reader by flux_reader_nasa", "not declared"),
    ("GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint) TO PUBLIC", "openings",
     "EXECUTE on pg_advisory_lock(bigint) to PUBLIC", "not declared"),
    ("CREATE ROLE stranger; GRANT flux_ingest TO stranger", "members", "flux_ingest by stranger", "not declared"),
    ("DO $$ BEGIN EXECUTE format('ALTER ROLE flux_ingest IN DATABASE %I SET row_security = off', current_database());"
     " END $$", "overrides", "flux_ingest: row_security=off", "not declared"),
    ("DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO PUBLIC', current_database()); END $$",
     "openings", "CONNECT on this database to PUBLIC", "not declared"),
    ("GRANT CREATE ON SCHEMA public TO PUBLIC", "openings", "CREATE on public to PUBLIC", "not declared"),
    ("ALTER TABLE flux.runs DROP CONSTRAINT runs_agency_id_request_id_key", "constraints",
     "flux.runs.runs_agency_id_request_id_key", "missing"),
    ("CREATE UNIQUE INDEX tells ON flux.runs (request_id)", "indexes", "flux.tells", "not declared"),
    ("ALTER TABLE flux.runs ADD COLUMN more int", "columns", "flux.runs.more", "not declared"),
    ("CREATE TRIGGER t BEFORE UPDATE ON flux.runs EXECUTE FUNCTION suppress_redundant_updates_trigger()",
     "triggers", "flux.runs.t", "not declared"),
    ("ALTER SCHEMA flux_audit OWNER TO flux_audit", "schemas", "flux_audit", "owner is flux_audit"),
    ("ALTER DEFAULT PRIVILEGES FOR ROLE flux_owner GRANT SELECT ON TABLES TO flux_reader", "default_privileges",
     "r of flux_owner", "not declared"),
]  # fmt: skip


@pytest.mark.usefixtures("opened")
async def test_each_drift_is_named(admin: Any) -> None:
    """By kind, name and finding, with what it means and a next step; and nothing else is said."""
    for statement, kind, name, words in DRIFTS:
        trial = admin.transaction()
        await trial.start()
        await admin.execute(statement)
        found = list(compared(things_in(await look(admin)), declaration(), 18))
        await trial.rollback()

        first = [drift for drift in found if (drift.kind, drift.name) == (kind, name)]
        assert first, (statement, found)
        assert words in first[0].finding, (statement, first)
        assert all(drift.means and drift.next_step for drift in found)


INNOCENT = [
    "CREATE INDEX more ON flux.runs (code)",
    "COMMENT ON TABLE flux.runs IS 'x'",
    "ALTER TABLE flux.runs SET (fillfactor = 90)",
    "ALTER ROLE flux_reader NOLOGIN",
    "CREATE ROLE flux_reader_esa LOGIN CONNECTION LIMIT 4; ALTER ROLE flux_reader_esa SET temp_file_limit = '256MB';"
    " GRANT flux_reader TO flux_reader_esa WITH SET FALSE;"
    " ALTER ROLE flux_reader_esa SET lock_timeout = '5s';"
    " ALTER ROLE flux_reader_esa SET idle_in_transaction_session_timeout = '5s';"
    " ALTER ROLE flux_reader_esa SET statement_timeout = '30s'; ALTER ROLE flux_reader_esa SET tcp_user_timeout = '10s';"
    " ALTER ROLE flux_reader_esa SET synchronous_commit = 'on'; ALTER ROLE flux_reader_esa SET search_path = flux, pg_temp",
    "CREATE TABLE flux.part () INHERITS (flux.runs); ALTER TABLE flux.part OWNER TO flux_owner;"
    " ALTER TABLE flux.part ENABLE ROW LEVEL SECURITY; ALTER TABLE flux.part FORCE ROW LEVEL SECURITY",
]


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize("statement", INNOCENT, ids=range(len(INNOCENT)))
async def test_what_an_operator_may_do_is_no_drift(admin: Any, statement: str) -> None:
    """An index that is not unique, storage options, strict mode, a reader as `roles` makes it, a closed partition."""
    trial = admin.transaction()
    await trial.start()
    await admin.execute(statement)
    found = list(compared(things_in(await look(admin)), declaration(), 18))
    await trial.rollback()

    assert found == []


@pytest.mark.usefixtures("opened")
async def test_migrations_are_held_to_their_files(open_as: Any, admin: Any) -> None:
    """One that is missing, one with another text, one that nobody knows."""
    reader = await open_as("flux_reader")
    await admin.execute("DELETE FROM flux_meta.migrations WHERE version = 3")
    await admin.execute("UPDATE flux_meta.migrations SET sha256 = '0' WHERE version = 2")
    await admin.execute("INSERT INTO flux_meta.migrations VALUES (99, '0099_pre_later.sql', 'x')")
    found = await examine(reader)

    assert {(drift.name[:4], drift.finding) for drift in found.drifts} == {
        ("0003", "is not applied"), ("0002", "was applied with another text"), ("0099", "is not known here")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("version", "needed"),
    [(140030, "15.20"), (150019, "15.20"), (160015, "16.16"), (170011, "17.12"), (180005, "18.6")],
)
def test_a_release_without_the_fixes_is_told(version: int, needed: str) -> None:
    """Each major release has its own floor."""
    assert needed in (release_fault(version) or "")


def test_a_release_with_the_fixes_is_fine() -> None:
    """The floor itself, what is above it, and majors that came later."""
    assert [release_fault(version) for version in (150020, 160017, 170012, 180006, 190000)] == [None] * 5


@pytest.mark.usefixtures("opened")
async def test_an_old_server_is_named_by_both(open_as: Any, settings_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service does not start and says which release is needed and what accepts the old one; the doctor names it."""
    monkeypatch.setitem(room._SQL._texts, "server_version", "SELECT 170011")
    monkeypatch.setattr("flux_common.postgres.doctor._VERSION", "SELECT 170011")
    with pytest.raises(FluxError) as refused:
        await Database.open(settings_for("flux_ingest"), "test")
    found = await examine(await open_as("flux_reader", accept_old_server=True))

    assert refused.value.code == Code.SETTINGS_INVALID
    assert all(word in refused.value.message for word in ("17.11", "17.12", "FLUX_POSTGRES_ACCEPT_OLD_SERVER"))
    server = [drift for drift in found.drifts if drift.kind == "server"]
    assert [(drift.name, "17.12" in drift.finding) for drift in server] == [("17.11", True)]


@pytest.fixture
def doctor(settings_for: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Callable[..., tuple[int, str, str]]:
    """The command, as the reader: exit status, standard output, standard error."""
    settings = settings_for("flux_reader")
    monkeypatch.setenv("FLUX_DEV_ENV", "")
    monkeypatch.setenv("FLUX_READER_DSN", settings.dsn)
    monkeypatch.setenv("FLUX_READER_PASSWORD_FILE", str(settings.password_file))

    def call(*arguments: str) -> tuple[int, str, str]:
        status = run(["doctor", *arguments])
        return status, *capsys.readouterr()

    return call


@pytest.mark.usefixtures("opened")
def test_the_command_says_that_all_is_well(doctor: Any) -> None:
    """A sound database: exit status 0, also for programs."""
    status, said, about = doctor()
    assert (status, said) == (Exit.OK, "the database is as declared\n")
    assert "not strict" in about
    status, said, _ = doctor("-o", "json")
    assert status == Exit.OK
    assert json.loads(said)["drifts"] == []
    assert "flux_reader_nasa" in json.loads(said)["readers"]


@pytest.mark.usefixtures("opened")
def test_the_command_tells_what_drifted(doctor: Any, database: OneDatabase) -> None:
    """Exit status 18, each drift with what it means and the next step; strict mode may be asked for."""
    import asyncio

    import asyncpg

    async def drift() -> None:
        connection = await asyncpg.connect(database.dsn)
        await connection.execute("ALTER TABLE flux.runs NO FORCE ROW LEVEL SECURITY")
        await connection.close()

    asyncio.run(drift())
    status, said, about = doctor()
    assert status == Exit.DRIFTED == 18
    assert said.startswith("relations: flux.runs forced is no, declared is yes\n  means: whoever becomes the owner")
    assert "1 differences" in about
    status, said, _ = doctor("--strict", "-o", "json")
    assert status == Exit.DRIFTED
    assert [(one["kind"], one["name"]) for one in json.loads(said)["drifts"]] == [
        ("relations", "flux.runs"),
        ("strict", "flux_reader"),
    ]


@pytest.mark.usefixtures("opened")
def test_an_agency_without_a_reader_is_told(doctor: Any, tmp_path: Path) -> None:
    """Where the registry is given, each of its agencies has a login of its own."""
    agencies = [DevelopmentAgency(name, name) for name in ("nasa", "of-this-test")]
    status, said, _ = doctor("--agencies", str(write_development_registry(tmp_path, agencies)), "-o", "json")

    assert status == Exit.DRIFTED
    assert [(one["kind"], one["name"]) for one in json.loads(said)["drifts"]] == [
        ("readers", "flux_reader_of_this_test")
    ]


def test_every_kind_has_a_meaning() -> None:
    """No difference is told without what it means."""
    kinds = declaration().things
    assert {kind for kind in kinds if not any(key.startswith(kind) for key in MEANINGS)} == set()
