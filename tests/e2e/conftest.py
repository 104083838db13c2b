"""A whole Flux for the end-to-end tests: real servers, four real processes, real tokens; the oracle reads it afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace

import pytest

from flux_client.development import EXAMPLE_AGENCIES
from flux_devkit.flux import Flux
from flux_devkit.installation import SERVICES, Installation
from flux_devkit.oracle import examine
from flux_devkit.plugin import ROLE_PASSWORD, PostgresServer
from flux_devkit.servers import Servers
from flux_devkit.sessions import TestSession

STRICT = "national-archives"  # requires audit
QUICK = {"FLUX_DISPATCH_BACKOFF_MIN_S": "0.2", "FLUX_DISPATCH_STALL_AFTER_S": "20"}


@pytest.fixture(scope="session")
def running_flux(kafka_bootstrap: str, postgres_server: PostgresServer, flux_session: TestSession) -> Iterator[Flux]:
    """One installation on the session's servers, running; traces go to files."""
    folder = flux_session.folder / "e2e"
    traces = {service: {"FLUX_TRACE_FILE": str(folder / f"{service}.spans")} for service in SERVICES}
    installation = Installation(
        Servers(kafka_bootstrap, postgres_server.dsn),
        role_password=ROLE_PASSWORD,
        keys=folder / "keys",
        folder=folder / "data",
        database=f"e2e_{secrets.token_hex(6)}",
        topic_prefix=f"e{secrets.token_hex(3)}.",
        agencies=[replace(one, audit_required=one.agency_id == STRICT) for one in EXAMPLE_AGENCIES],
        overrides={**traces, "checkpoint": traces["checkpoint"] | QUICK},
    )
    with Flux(installation, folder / "logs") as running:
        yield running


@pytest.fixture(scope="module")
def flux(running_flux: Flux) -> Iterator[Flux]:
    """The installation; when a module's tests are done, the oracle reads everything that was ever done on it."""
    yield running_flux
    examine(running_flux.installation, settled=True, quiescent=True, patience_s=120.0).assert_clean()
