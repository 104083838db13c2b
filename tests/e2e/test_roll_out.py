"""A roll-out, in the two orders that it may be met in: this release on the schema before it, and on the one after it.

The release before this one is not at hand, so the one after is made: a *pre* file with everything that such a file may do, and
a *post* file that takes away what this release stopped reading. Both are applied under running services, midway in a run.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from flux_client.keys import ensure_key
from flux_client.reader import reading
from flux_common.kafka.admin import create_topics
from flux_common.kernel.errors import Unavailable
from flux_common.postgres import migrations as room
from flux_common.postgres.migrations import LOGIN_ROLES, Migration, create_roles, migrate, migrations
from flux_common.settings import PostgresSettings
from flux_devkit.asking import a_request, ask, ends, texts
from flux_devkit.flux import Flux, wait_until
from flux_devkit.installation import SERVICES, TREE_HEAD_KEY, Installation
from flux_devkit.kafka import delete_topics
from flux_devkit.oracle import examine
from flux_devkit.plugin import ROLE_PASSWORD, PostgresServer
from flux_devkit.servers import Servers
from flux_devkit.sessions import TestSession
from flux_devkit.underway import a_wide_request, held_midway

AGENCY = "nasa"
KNOWN = migrations()
LEFT_BEHIND = (
    "SET ROLE flux_owner; ALTER TABLE flux.runs ADD COLUMN of_the_last_release text NOT NULL DEFAULT 'kept for its sake';"
    " ALTER TABLE flux_ingest.requests ADD COLUMN of_the_last_release text"
)
NEXT = [
    Migration(
        len(KNOWN) + 1,
        f"{len(KNOWN) + 1:04}_pre_next_release.sql",
        (Path(__file__).parent / "next_release.sql").read_text(),
    ),
    Migration(
        len(KNOWN) + 2,
        f"{len(KNOWN) + 2:04}_post_of_this_release.sql",
        "SET LOCAL lock_timeout = '5s'; ALTER TABLE flux.runs DROP COLUMN of_the_last_release;"
        " ALTER TABLE flux_ingest.requests DROP COLUMN of_the_last_release",
    ),
]
QUICK = {"FLUX_OPS_WAIT_BACKOFF_MAX_MS": "500"}
WITH_DATABASE = ("ingest", "checkpoint", "audit")


@pytest.fixture
def fresh(kafka_bootstrap: str, postgres_server: PostgresServer, flux_session: TestSession) -> Iterator[Flux]:
    """A Flux of which only keys, roles and topics are there yet; its services do not run."""
    name = f"rollout_{secrets.token_hex(4)}"
    folder = flux_session.folder / name
    installation = Installation(
        Servers(kafka_bootstrap, postgres_server.create_database(name).dsn),
        keys=folder / "keys",
        folder=folder / "data",
        database=name,
        topic_prefix=f"{name}.",
        role_password=ROLE_PASSWORD,
        overrides=dict.fromkeys(SERVICES, QUICK) | {"checkpoint": QUICK | {"FLUX_EXPIRY_INTERVAL_MS": "200"}},
    )
    flux = Flux(installation, flux_session.folder / "logs" / name)
    yield flux
    flux.services.stop()
    postgres_server.drop_database(name)
    delete_topics(installation.kafka().confluent_options(), installation.topic_prefix)


async def at_schema(flux: Flux, monkeypatch: pytest.MonkeyPatch, files: list[Migration]) -> list[str]:
    """Run the migrate job of the release that has these files, again where a table's lock was not to be had."""
    dsn, password = flux.installation.role_dsn("flux_migrate"), flux.installation.password("flux_migrate")
    with monkeypatch.context() as release:
        release.setattr(room, "migrations", lambda: files)
        async with asyncio.timeout(60):
            while True:
                with suppress(Unavailable):
                    await migrate(dsn, password=password)
                    return await names(flux)


async def names(flux: Flux) -> list[str]:
    """Return the names of the files that were applied, in the order in which that was."""
    async with administering(flux) as session:
        rows = await session.fetch("SELECT name FROM flux_meta.migrations ORDER BY applied_at, version")
    return [row["name"] for row in rows]


@asynccontextmanager
async def administering(flux: Flux) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Give an administrator's session."""
    session = await asyncpg.connect(flux.installation.admin_dsn)
    try:
        yield session
    finally:
        await session.close()


async def completed(flux: Flux, run: str) -> bool:
    """Wait for a run's end and its receipt, and say whether it was completed, and whether a reader is told so."""
    found = await ends(flux, AGENCY, {run}, proven=True)
    password = flux.installation.password_file("flux_reader")
    async with reading(
        PostgresSettings(dsn=flux.installation.role_dsn("flux_reader"), password_file=password), AGENCY
    ) as reader:
        told = await reader.summary(UUID(run))
    return (found[run].type, told and told["state"]) == ("flux.run.completed.v1", "COMPLETED")


async def asked(flux: Flux, request: dict[str, Any]) -> str:
    """Ask for a run and return its id."""
    (decision,) = await ask(flux, AGENCY, request)
    return decision.submitted.run_id


def small(flux: Flux, name: str) -> dict[str, Any]:
    """Return the request for a run of four partitions."""
    source = texts(flux.folder("archives", AGENCY, "small"), 20)
    return a_request(flux, AGENCY, name, source, partitioning={"objects_max": 5})


def pids(flux: Flux) -> list[int]:
    """Return the process id of each service."""
    return [service.process.pid for service in flux.services]


@pytest.mark.slow
async def test_services_wait_for_their_schema_and_work_on_the_next_one(
    fresh: Flux, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the schema before: not ready, and why; migrated: ready, nobody restarted. On the schema after: work as ever.

    The next release's job applies its files in the order of their numbers, while a run of this release is midway.
    """
    installation = fresh.installation
    installation.registry()
    ensure_key(installation.keys, TREE_HEAD_KEY, "EdDSA")
    await create_roles(installation.admin_dsn, dict.fromkeys(LOGIN_ROLES, ROLE_PASSWORD))
    await create_topics(installation.kafka(), [agency.agency_id for agency in installation.agencies], development=True)
    await at_schema(fresh, monkeypatch, KNOWN[:-1])
    said = f"SCHEMA_OUTDATED: The schema is at {len(KNOWN) - 1}, this release needs {len(KNOWN)}: run `migrate`"

    await asyncio.to_thread(_begin, fresh, said)
    before = pids(fresh)
    last = await at_schema(fresh, monkeypatch, KNOWN)
    for service in fresh.services:
        await asyncio.to_thread(service.wait_ready)
    migrated = await completed(fresh, await asked(fresh, small(fresh, "on-this-schema")))

    async with administering(fresh) as session:
        await session.execute(LEFT_BEHIND)
    run = await asked(fresh, a_wide_request(fresh, AGENCY, "while-it-is-migrated"))
    async with held_midway(fresh, run) as held:
        migrating = asyncio.create_task(at_schema(fresh, monkeypatch, [*KNOWN, *NEXT]))
        await held.waits("flux_migrate")
    applied = await migrating
    during, after = await completed(fresh, run), pids(fresh)
    # This release is rolled back to, with its jobs, or its processes are moved: they start on the newer schema.
    await create_roles(installation.admin_dsn, dict.fromkeys(LOGIN_ROLES, ROLE_PASSWORD))
    undone = await at_schema(fresh, monkeypatch, KNOWN)
    await asyncio.gather(*(asyncio.to_thread(fresh.services[name].restart) for name in WITH_DATABASE))
    restarted = await completed(fresh, await asked(fresh, small(fresh, "on-the-next-schema")))

    assert last == [migration.name for migration in KNOWN]
    assert applied == undone == [migration.name for migration in [*KNOWN, *NEXT]]
    assert after == before
    assert (migrated, during, restarted) == (True, True, True)
    examine(installation, settled=True, quiescent=True).assert_clean()


def _begin(flux: Flux, said: str) -> None:
    """Begin the services, and wait until each that has a database says why it waits; transform needs none."""
    for service in flux.services:
        service.begin()
    for name in WITH_DATABASE:
        wait_until(
            f"{name} waits for the schema", lambda n=name: flux.services[n].why("/readyz")[1].get("schema") == said
        )
    flux.services["transform"].wait_ready()
