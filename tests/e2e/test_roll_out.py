"""A roll-out, in the two orders that it may be met in: this release on the schema before it, and on the one after it.

The release before this one is not at hand, so the one after is made: a *pre* migration more, applied under running services.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator

import pytest

from flux_client.keys import ensure_key
from flux_common.kafka.admin import create_topics
from flux_common.postgres import migrations as room
from flux_common.postgres.migrations import LOGIN_ROLES, Migration, create_roles, migrate, migrations
from flux_devkit.asking import a_request, ask, ends, texts
from flux_devkit.flux import Flux, wait_until
from flux_devkit.installation import SERVICES, TREE_HEAD_KEY, Installation
from flux_devkit.kafka import delete_topics
from flux_devkit.oracle import examine
from flux_devkit.plugin import ROLE_PASSWORD, PostgresServer
from flux_devkit.servers import Servers
from flux_devkit.sessions import TestSession

AGENCY = "nasa"
KNOWN = migrations()
NEXT = Migration(
    len(KNOWN) + 1,
    f"{len(KNOWN) + 1:04}_pre_next_release.sql",
    "SET LOCAL lock_timeout = '5s'; ALTER TABLE flux.runs ADD COLUMN of_the_next_release text;"
    " CREATE TABLE flux.of_the_next_release (n int)",
)
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
        overrides={key: {"FLUX_OPS_WAIT_BACKOFF_MAX_MS": "500"} for key in SERVICES},
    )
    flux = Flux(installation, flux_session.folder / "logs" / name)
    yield flux
    flux.services.stop()
    postgres_server.drop_database(name)
    delete_topics(installation.kafka().confluent_options(), installation.topic_prefix)


async def at_schema(flux: Flux, monkeypatch: pytest.MonkeyPatch, files: list[Migration]) -> list[str]:
    """Run the migrate job of the release that has these files."""
    installation = flux.installation
    with monkeypatch.context() as release:
        release.setattr(room, "migrations", lambda: files)
        return await migrate(installation.role_dsn("flux_migrate"), password=installation.password("flux_migrate"))


async def a_run_completes(flux: Flux, name: str) -> bool:
    """Ask for a run and say whether it completed, with its receipt."""
    source = texts(flux.folder("archives", AGENCY, name), 20)
    (decision,) = await ask(flux, AGENCY, a_request(flux, AGENCY, name, source, partitioning={"objects_max": 5}))
    run = decision.submitted.run_id
    found = await ends(flux, AGENCY, {run}, proven=True)
    return found[run].type == "flux.run.completed.v1"


def pids(flux: Flux) -> list[int]:
    """Return the process id of each service."""
    return [service.process.pid for service in flux.services]


@pytest.mark.slow
async def test_services_wait_for_their_schema_and_work_on_the_next_one(
    fresh: Flux, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the schema before: not ready, and why; migrated: ready, nobody restarted. On the schema after: work as ever."""
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
    migrated = await a_run_completes(fresh, "on-this-schema")

    working = asyncio.create_task(a_run_completes(fresh, "while-it-is-migrated"))
    applied = await at_schema(fresh, monkeypatch, [*KNOWN, NEXT])
    during, after = await working, pids(fresh)
    # This release is rolled back to, or its processes are moved: they start on the newer schema.
    await asyncio.gather(*(asyncio.to_thread(fresh.services[name].restart) for name in WITH_DATABASE))
    restarted = await a_run_completes(fresh, "on-the-next-schema")

    assert (last, applied) == ([KNOWN[-1].name], [NEXT.name])
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
