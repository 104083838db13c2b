"""The probes of the four real services: what they wait for at the start, outages, rebalances, a loop that hangs.

All on servers of this module's own, for they are stopped and started. Outages and rebalances hit runs that are under way;
when the module is done, the oracle reads what became of all of them. That an event loop that is blocked altogether fails
`/livez` is shown with the toy (tests/integration/common/test_service_process.py): then no process answers at all.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from flux_client.keys import ensure_key
from flux_common.kafka.admin import create_topics
from flux_common.postgres.migrations import LOGIN_ROLES, create_roles, migrate
from flux_devkit.asking import ask, ends
from flux_devkit.draining import Sampling, members
from flux_devkit.flux import Flux, wait_until
from flux_devkit.home import Home
from flux_devkit.installation import SERVICES, TREE_HEAD_KEY, Installation
from flux_devkit.kafka import EmbeddedKafka
from flux_devkit.oracle import examine
from flux_devkit.postgres import EmbeddedPostgres, PostgresOptions, create_database
from flux_devkit.servers import Servers
from flux_devkit.services import Service, ServiceOptions, Services
from flux_devkit.sessions import TestSession
from flux_devkit.underway import a_wide_request, held_midway, load

QUICK = {"FLUX_OPS_WAIT_BACKOFF_MAX_MS": "500", "FLUX_KAFKA_SESSION_TIMEOUT_MS": "6000"}
WITH_DATABASE = {"ingest", "checkpoint", "audit"}
AGENCY = "national-archives"
pytestmark = pytest.mark.slow


@dataclass
class Own:
    """Servers that may be stopped, and installations on them."""

    kafka: EmbeddedKafka
    postgres: EmbeddedPostgres
    folder: Path
    logs: Path

    def installation(self) -> Installation:
        """Return an installation of which nothing is there yet but the keys and the registry."""
        name = f"probes_{secrets.token_hex(3)}"
        made = Installation(
            Servers(self.kafka.bootstrap, self.postgres.dsn),
            keys=self.folder / "keys",
            folder=self.folder / "data",
            database=name,
            topic_prefix=f"{name}.",
            overrides=dict.fromkeys(SERVICES, QUICK),
            role_password="for-these-servers",
        )
        made.registry()
        ensure_key(made.keys, TREE_HEAD_KEY, "EdDSA")
        return made


@pytest.fixture(scope="module")
def own(flux_home: Home, flux_session: TestSession) -> Iterator[Own]:
    """Servers that have addresses and do not run."""
    folder = flux_session.folder / "data" / "probes"
    kafka = EmbeddedKafka(flux_home, folder / "kafka", hold=flux_session.place.hold)
    postgres = EmbeddedPostgres(folder / "postgres", PostgresOptions(fsync=False), hold=flux_session.place.hold)
    try:
        for server in (kafka, postgres):
            server.begin()
        for server in (kafka, postgres):
            server.wait_ready()
            server.stop()
        yield Own(kafka, postgres, folder, flux_session.folder / "logs" / "probes")
    finally:
        kafka.stop()
        postgres.remove()


@pytest.fixture(scope="module")
def flux(own: Own) -> Iterator[Flux]:
    """The four services on the module's servers, ready; at the end every run is complete, and nothing was lost or doubled."""
    own.postgres.restart()
    own.kafka.restart()
    with Flux(own.installation(), own.logs) as running:
        yield running
        report = examine(running.installation, settled=True, quiescent=True, patience_s=120.0)
    report.assert_clean()
    counted = [report.figures.get(name, 0) for name in ("requests accepted", "runs", "runs COMPLETED")]
    assert len(set(counted)) == 1, report.figures


def steps(own: Own, installation: Installation) -> dict[str, Callable[[], object]]:
    """Return what an operator's deployment does, in the order of its pieces' arrival."""

    def database() -> None:
        own.postgres.start()
        create_database(own.postgres.dsn, installation.database)

    def roles() -> None:
        passwords = {role: installation.password(role) for role in LOGIN_ROLES}
        asyncio.run(create_roles(installation.admin_dsn, passwords))

    def schema() -> None:
        asyncio.run(migrate(installation.role_dsn("flux_migrate"), password=installation.password("flux_migrate")))

    def topics() -> None:
        agencies = [agency.agency_id for agency in installation.agencies]
        asyncio.run(create_topics(installation.kafka(), agencies, development=True))

    return {"database": database, "roles": roles, "schema": schema, "kafka": own.kafka.start, "topics": topics}


# After each step: what ingest, checkpoint and audit still wait for, and what transform does; None: ready.
ORDERS = {
    "the database first": [
        ("", "postgres", "kafka"),
        ("database", "postgres", "kafka"),
        ("roles", "schema", "kafka"),
        ("schema", "kafka", "kafka"),
        ("kafka", "topics", "topics"),
        ("topics", None, None),
    ],
    "kafka first": [
        ("kafka", "postgres", "topics"),
        ("topics", "postgres", None),
        ("database", "postgres", None),
        ("roles", "schema", None),
        ("schema", None, None),
    ],
}
SAID = {
    "postgres": ("ConnectionRefusedError", "DATABASE_UNAVAILABLE"),
    "schema": ("SCHEMA_OUTDATED: The schema is at 0",),
    "kafka": ("BROKER_UNAVAILABLE",),
    "topics": ("TOPIC_MISSING: no topic",),
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_a_service_waits_for_what_is_not_there_and_says_so(own: Own, order: list[tuple[str, str, str]]) -> None:
    """In any order: alive, not started, the reason in `/startupz` and in the log; ready when the last piece has come."""
    own.kafka.stop()
    own.postgres.stop()
    installation = own.installation()
    services = Services(installation.services(), own.logs / installation.database)
    todo = steps(own, installation)
    try:
        for service in services:
            service.begin()
        for step, with_database, transform in order:
            if step:
                todo[step]()
            for service in services:
                wanted = with_database if service.options.name in WITH_DATABASE else transform
                wait_until(
                    f"{service.options.name} waits for {wanted} after {step!r}", lambda s=service, w=wanted: waits(s, w)
                )
        lives = [service.probe("/livez") for service in services]
        logs = {service.options.name: service.log.read_text() for service in services}
    finally:
        codes = services.stop()

    assert lives == [200] * 4
    assert set(codes.values()) == {0}
    assert [
        name for name, log in logs.items() if '"event": "waiting"' not in log or '"event": "started"' not in log
    ] == []


def waits(service: Service, dependency: str | None) -> bool:
    """Whether a service waits for just this, or for nothing."""
    status, why = service.why("/startupz")
    if dependency is None:
        return status == 200 and service.ready()
    said = f'"dependency": "{dependency}"' in service.log.read_text()
    return status == 503 and said and why.get(dependency, "").startswith(SAID[dependency])


def statuses(flux: Flux) -> dict[str, int | None]:
    """Return what `/readyz` says of each service."""
    return {service.options.name: service.probe("/readyz") for service in flux.services}


@pytest.mark.parametrize("server", ["postgres", "kafka"])
async def test_an_outage_is_not_ready_and_alive_and_over_when_it_is_over(own: Own, flux: Flux, server: str) -> None:
    """Who needs the server says 503 and names it; nobody is restarted; when it is back they are ready by themselves.

    A run is midway when the server goes; it is completed all the same.
    """
    hit = WITH_DATABASE if server == "postgres" else set(SERVICES)
    wanted = {name: 503 if name in hit else 200 for name in SERVICES}
    request = a_wide_request(flux, AGENCY, f"outage-{server}")
    (decision,) = await ask(flux, AGENCY, request)
    run = decision.submitted.run_id
    with Sampling("/livez", flux.services) as alive:
        async with held_midway(flux, run):
            getattr(own, server).stop()
        wait_until(f"not ready without {server}", lambda: statuses(flux) == wanted)
        named = {name for name in SERVICES if server in flux.services[name].why("/readyz")[1]}
        started = {service.probe("/startupz") for service in flux.services}
        getattr(own, server).start()
        wait_until("ready again", lambda: set(statuses(flux).values()) == {200})
    found = await ends(flux, AGENCY, {run})

    assert named == hit
    assert started == {200}
    assert dict(alive.answers) == {key: {200} for key in SERVICES}
    assert found[run].type == "flux.run.completed.v1"


async def test_a_rebalance_does_not_flip_readiness(flux: Flux) -> None:
    """A second process of each service joins every group and leaves again; the first ones are ready all the time.

    Runs are asked for and done meanwhile; each is completed.
    """
    with Sampling("/readyz", flux.services) as ready:
        async with load(flux, [AGENCY], at_once=1) as found:
            await asyncio.to_thread(joined_and_left, flux)

    assert dict(ready.answers) == {key: {200} for key in SERVICES}, ready.reasons
    assert set(found.values()) == {"flux.run.completed.v1"}


def joined_and_left(flux: Flux) -> None:
    """Let twins of all services join the groups, and leave them."""
    twins = [replace(options, name=f"{options.name}-2") for options in flux.installation.services()]
    with Services(twins, flux.logs):
        wait_until("two members in each group", lambda: counted(flux) == {2})
    wait_until("the twins have left", lambda: counted(flux) == {1})


def counted(flux: Flux) -> set[int]:
    """Return the numbers of members that the groups have."""
    return {count for name in SERVICES for count in members(flux.installation, name).values()}


def test_a_poll_that_hangs_fails_livez(flux: Flux) -> None:
    """The loop that polls for records stands still for longer than is legal; the operations port names it, with 503.

    Of the two kinds of loop that poll: that of lanes, which ingest, checkpoint and audit have, and that of work items.
    """
    quick = {"FLUX_OPS_LOOP_STALL_MS": "2000", "FLUX_KAFKA_MAX_POLL_INTERVAL_MS": "2000"}
    quick |= {"FLUX_KAFKA_SESSION_TIMEOUT_MS": "1500", "PYTHONPATH": str(Path(__file__).parent)}
    hanging = [
        ServiceOptions(
            f"{name}-hanging", "hanging_service", flux.installation.environment(name) | quick, (module, "serve")
        )
        for name, module in (("audit", "flux_audit"), ("transform", "flux_transform"))
    ]
    with Services(hanging, flux.logs) as services:
        before = [service.probe("/livez") for service in services]
        for service in services:
            os.kill(service.process.pid, signal.SIGUSR1)
        wait_until("livez fails", lambda: {service.probe("/livez") for service in services} == {503})
        why = [set(service.why("/livez")[1]) for service in services]
        for service in services:
            service.kill()

    assert before == [200, 200]
    assert why == [{"lanes-facts"}, {"work"}]
