"""A whole run on brokers with logins: every service and every client as itself, with what the code grants and no more."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator

import pytest

from flux_client.development import DevelopmentAgency
from flux_client.lag import lags
from flux_client.subscriber import FluxSubscriber
from flux_common.contracts.catalogue import GROUPS
from flux_common.kernel.errors import Unavailable
from flux_devkit.asking import a_request, agency_kafka, ask, ends, texts
from flux_devkit.flux import Flux
from flux_devkit.installation import SERVICES, Installation
from flux_devkit.oracle import examine
from flux_devkit.plugin import ROLE_PASSWORD, PostgresServer
from flux_devkit.secured import SecuredKafka
from flux_devkit.servers import Servers
from flux_devkit.sessions import TestSession

AGENCY, OTHER = "nasa", "library-of-congress"


@pytest.fixture(scope="module")
def secured_flux(
    secured_kafka: SecuredKafka, postgres_server: PostgresServer, flux_session: TestSession
) -> Iterator[Flux]:
    """An installation of two agencies whose services are logged in."""
    folder = flux_session.folder / "e2e-logins"
    installation = Installation(
        Servers(secured_kafka.broker.bootstrap, postgres_server.dsn),
        secured=secured_kafka,
        role_password=ROLE_PASSWORD,
        keys=folder / "keys",
        folder=folder / "data",
        database=f"e2e_{secrets.token_hex(6)}",
        topic_prefix=f"e{secrets.token_hex(3)}.",
        agencies=[DevelopmentAgency(AGENCY, "NASA"), DevelopmentAgency(OTHER, "Library of Congress")],
    )
    with Flux(installation, folder / "logs") as running:
        yield running


async def test_a_run_completes_where_everybody_is_logged_in_as_himself(secured_flux: Flux) -> None:
    """From the request to the proven completion; the oracle finds nothing, and no client was ever refused anything."""
    source = texts(secured_flux.folder("archives", AGENCY, "one"), 6)
    (decision,) = await ask(secured_flux, AGENCY, a_request(secured_flux, AGENCY, "one", source))
    run = decision.submitted.run_id
    end = (await ends(secured_flux, AGENCY, [run], proven=True))[run]
    said = {name: (secured_flux.logs / f"{name}.log").read_text() for name in SERVICES}

    assert (decision.accepted, end.type) == (True, "flux.run.completed.v1")
    assert end.receipt is not None
    assert [name for name, text in said.items() if "uthorizationFailed" in text or "AUTHORIZATION" in text] == []
    report = await asyncio.to_thread(examine, secured_flux.installation, settled=True, quiescent=True)
    report.assert_clean()


async def test_a_group_of_an_agency_begins_with_its_name(secured_flux: Flux) -> None:
    """A subscriber of its own group reads what the run above ended with; another's topic is closed to it."""
    mine, others = agency_kafka(secured_flux, AGENCY), agency_kafka(secured_flux, OTHER)
    async with FluxSubscriber(AGENCY, mine, group=f"flux.{AGENCY}.watchers") as subscriber, asyncio.timeout(30):
        found = await anext(aiter(subscriber))
    async with FluxSubscriber(AGENCY, others, start="beginning") as stranger:
        with pytest.raises(Unavailable, match="forbidden"):
            await stranger.completions().poll()

    assert found.type == "flux.run.completed.v1"


async def test_an_observer_sees_how_far_every_group_is(secured_flux: Flux) -> None:
    """What an autoscaler needs, with a login that may read no record."""
    found = await lags(secured_flux.installation.kafka("flux-observer"))

    assert {one.group for one in found} == {group.name for group in GROUPS}
