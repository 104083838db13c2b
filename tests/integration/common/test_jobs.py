"""The one-shot jobs as real processes, on a real PostgreSQL and a real Kafka."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest

from flux_client.development import write_development_registry
from flux_common.contracts.catalogue import TOPICS
from flux_common.kafka.admin import topic_facts
from flux_common.kernel.errors import FluxError
from flux_common.postgres.database import Database
from flux_common.postgres.doctor import examine
from flux_common.postgres.migrations import LOGIN_ROLES, create_roles, migrate, migrations, require_schema
from flux_common.settings import KafkaSettings, PostgresSettings
from flux_devkit.plugin import Database as EmptyDatabase
from flux_devkit.plugin import PostgresServer

AGENCIES = ("nasa", "national-archives", "library-of-congress")
NOBODY = "127.0.0.1:1"
ABSENT = {"FLUX_POSTGRES_DSN": f"postgresql://flux_migrate@{NOBODY}/flux"}


class Ended(NamedTuple):
    """How a job ended: its exit code, the lines of its log, and what it wrote to standard error otherwise."""

    code: int
    log: list[dict[str, Any]]
    said: str


async def _run(job: str, **variables: str) -> Ended:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLUX_")} | variables
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "flux_checkpoint", job, env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    lines = [json.loads(line) for line in said.splitlines() if line.startswith(b"{")]
    return Ended(await process.wait(), lines, said.decode())


@pytest.fixture
def passwords(tmp_path: Path, password_file: Path) -> Path:
    """A folder as an orchestrator mounts it; the passwords are the session's, for roles belong to the whole cluster."""
    folder = tmp_path / "passwords"
    folder.mkdir()
    for role in LOGIN_ROLES:
        (folder / role).write_text(password_file.read_text() + "\n")
    return folder


@pytest.fixture
def empty_database(postgres_server: PostgresServer) -> EmptyDatabase:
    """A database without Flux's schema."""
    return postgres_server.create_database(f"jobs_{secrets.token_hex(4)}")


async def test_an_empty_database_gets_roles_and_schema_and_a_second_time_nothing(
    empty_database: EmptyDatabase, passwords: Path, tmp_path: Path
) -> None:
    """After `roles` and `migrate` a service's login finds the schema that it needs; both can be repeated."""
    login, _, rest = empty_database.dsn.removeprefix("postgresql://").partition("@")
    user, _, admin_password = login.partition(":")
    (tmp_path / "admin").write_text(admin_password or "unused")
    admin = {
        "FLUX_POSTGRES_DSN": f"postgresql://{user}@{rest}",
        "FLUX_POSTGRES_PASSWORD_FILE": str(tmp_path / "admin"),
        "FLUX_ROLES_PASSWORDS_DIR": str(passwords),
    }
    migrator = {
        "FLUX_POSTGRES_DSN": f"postgresql://flux_migrate@{rest}",
        "FLUX_POSTGRES_PASSWORD_FILE": str(passwords / "flux_migrate"),
    }
    runs = [await _run(job, **env) for job, env in (("roles", admin), ("migrate", migrator)) * 2]
    service = PostgresSettings(dsn=f"postgresql://flux_checkpoint@{rest}", password_file=passwords / "flux_checkpoint")
    database = await Database.open(service, "test")
    try:
        await require_schema(database)
    finally:
        await database.close()

    assert [run.code for run in runs] == [0, 0, 0, 0]
    assert [run.log[-1]["event"] for run in runs] == ["roles are there", "schema is current"] * 2
    assert [runs[1].log[-1]["applied"], runs[3].log[-1]["applied"]] == [[m.name for m in migrations()], []]
    assert all(passwords.joinpath("flux_audit").read_text().strip() not in run.said for run in runs)


async def test_the_topics_of_every_registered_agency_are_made_once(
    kafka_bootstrap: str, topic_prefix: str, tmp_path: Path
) -> None:
    """`topics` makes the whole catalogue for the agencies of the registry; a second time there is nothing to make."""
    registry = write_development_registry(tmp_path)
    environment = {
        "FLUX_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "FLUX_TOPIC_PREFIX": topic_prefix,
        "FLUX_AGENCIES_FILE": str(registry),
        "FLUX_TOPICS_DEVELOPMENT": "true",
    }
    first, second = [await _run("topics", **environment) for _ in range(2)]
    wanted = {t.of(agency) for t in TOPICS for agency in AGENCIES}
    present = await topic_facts(KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix), wanted)

    assert [first.code, second.code] == [0, 0]
    assert [set(first.log[-1]["created"]), second.log[-1]["created"]] == [wanted, []]
    assert first.log[-1]["drift"] == second.log[-1]["drift"] == []
    assert set(present) == wanted


@pytest.fixture
def own_server(fresh_postgres: Any, passwords: Path, tmp_path: Path) -> dict[str, str]:
    """An administrator's settings on a server of this test's own: strict mode belongs to the whole cluster."""
    user, _, rest = fresh_postgres().dsn.removeprefix("postgresql://").partition("@")
    (tmp_path / "admin").write_text(user.partition(":")[2])
    return {
        "FLUX_POSTGRES_DSN": f"postgresql://postgres@{rest}",
        "FLUX_POSTGRES_PASSWORD_FILE": str(tmp_path / "admin"),
        "FLUX_ROLES_PASSWORDS_DIR": str(passwords),
        "FLUX_AGENCIES_FILE": str(write_development_registry(tmp_path)),
    }


async def test_strict_mode_leaves_agencies_readers_alone(
    own_server: dict[str, str], passwords: Path, password_file: Path
) -> None:
    """Each agency of the registry gets its login; the one that may choose cannot log in, until the mode is switched off."""
    (passwords / "flux_reader_national_archives").write_text(password_file.read_text())
    server = own_server["FLUX_POSTGRES_DSN"].partition("@")[2]

    def login(role: str) -> PostgresSettings:
        return PostgresSettings(dsn=f"postgresql://{role}@{server}", password_file=password_file)

    roles = await _run("roles", **own_server, FLUX_ROLES_STRICT="true")
    await migrate(login("flux_migrate").dsn, password=password_file.read_text())
    reader = await Database.open(login("flux_reader_national_archives"), "test")
    strict = await examine(reader, strict=True)
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await Database.open(login("flux_reader"), "test")
    again = await _run("roles", **own_server)
    shared = await Database.open(login("flux_reader"), "test")
    relaxed = await examine(shared, strict=True)
    await asyncio.gather(reader.close(), shared.close())

    assert [roles.code, again.code] == [0, 0]
    assert (strict.strict, strict.drifts) == (True, [])
    assert strict.readers == ["flux_reader_library_of_congress", "flux_reader_nasa", "flux_reader_national_archives"]
    assert [(relaxed.strict, drift.kind) for drift in relaxed.drifts] == [(False, "strict")]


async def test_strict_mode_needs_a_registry(passwords: Path) -> None:
    """Without agencies nobody could read: that is a mistake, and is said."""
    ended = await _run("roles", **ABSENT, FLUX_ROLES_PASSWORDS_DIR=str(passwords), FLUX_ROLES_STRICT="true")

    assert ended.code == 2
    assert "FLUX_AGENCIES_FILE" in ended.said


async def test_an_agency_with_too_long_a_name_gets_no_login(database: EmptyDatabase) -> None:
    """A name of PostgreSQL ends at 63 characters, and two logins must never become one."""
    with pytest.raises(FluxError, match="51"):
        await create_roles(database.dsn, {}, agencies=["a" * 52])


async def test_jobs_that_run_twice_at_once_do_everything_once(
    empty_database: EmptyDatabase, passwords: Path, kafka_bootstrap: str, topic_prefix: str, tmp_path: Path
) -> None:
    """Two orchestrators, or one that lost count: all end with 0, everything is there, and nothing was made by both."""
    await create_roles(empty_database.dsn, {})
    migrator = {
        "FLUX_POSTGRES_DSN": empty_database.dsn_as("flux_migrate", "").replace("flux_migrate:@", "flux_migrate@"),
        "FLUX_POSTGRES_PASSWORD_FILE": str(passwords / "flux_migrate"),
    }
    maker = {
        "FLUX_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "FLUX_TOPIC_PREFIX": topic_prefix,
        "FLUX_AGENCIES_FILE": str(write_development_registry(tmp_path)),
        "FLUX_TOPICS_DEVELOPMENT": "true",
    }
    ended = await asyncio.gather(*(_run(job, **env) for job, env in (("migrate", migrator), ("topics", maker)) * 2))
    applied = [name for run in (ended[0], ended[2]) for name in run.log[-1]["applied"]]
    created = [set(run.log[-1]["created"]) for run in (ended[1], ended[3])]
    wanted = {t.of(agency) for t in TOPICS for agency in AGENCIES}
    present = await topic_facts(KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix), wanted)

    assert [run.code for run in ended] == [0, 0, 0, 0]
    assert sorted(applied) == [m.name for m in migrations()]
    assert (set(present), created[0] & created[1]) == (wanted, set())


async def test_a_job_that_cannot_be_done_ends_with_1() -> None:
    """Without a server the job says why and fails, so that an orchestrator runs it again."""
    ended = await _run("migrate", **ABSENT)

    assert ended.code == 1
    assert (ended.log[-1]["event"], ended.log[-1]["job"]) == ("the job failed", "migrate")


async def test_a_job_names_the_settings_that_it_misses() -> None:
    """Wrong settings end with 2, one line each, and the command that explains them."""
    ended = await _run("roles", FLUX_ROLES_PASSWORDS_DIR="/nowhere")

    assert ended.code == 2
    assert [line.split(" ")[0] for line in ended.said.splitlines()[:-1]] == [
        "FLUX_POSTGRES_DSN",
        "FLUX_ROLES_PASSWORDS_DIR",
    ]
    assert ended.said.splitlines()[-1] == "See: python -m flux_checkpoint roles --help"
