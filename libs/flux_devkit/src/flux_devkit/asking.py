"""Asking a running Flux, for tests, proofs and benchmarks: requests, decisions, and the ends of runs."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Any

from flux_client.events import TERMINAL, ReceivedEvent
from flux_client.producer import Decision, FluxProducer
from flux_client.subscriber import FluxSubscriber
from flux_client.tokens import IssuerKey
from flux_client.verifier import Trust
from flux_common.contracts.access import principal_of_agency
from flux_common.settings import KafkaSettings
from flux_devkit.flux import Flux

RUN_SECONDS = 180.0


def a_request(flux: Flux, agency: str, request_id: str, source: Path, **more: Any) -> dict[str, Any]:
    """Return a run request for a folder of the installation."""
    return {
        "request_id": request_id,
        "source": {"uri": f"{source.resolve().as_uri()}/"},
        "content_type": "text",
        "use_case": "research",
        "destination": {"uri": f"{flux.folder('datasets', agency).resolve().as_uri()}/"},
    } | more


def texts(folder: Path, count: int, *, lines: int = 20) -> Path:
    """Write `count` small text files below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        line = f"Report {number} of the surveyor, who found the river high and the bridge gone.\n\n"
        (folder / f"report-{number:05}.txt").write_text(line * lines)
    return folder


def agency_kafka(flux: Flux, agency: str) -> KafkaSettings:
    """Return the Kafka settings of an agency's own clients."""
    return flux.installation.kafka(principal_of_agency(agency))


def a_producer(flux: Flux, agency: str, *, signed_by: str | None = None) -> FluxProducer:
    """Return a producer for `agency`, by its own development key or another's."""
    return FluxProducer(agency, agency_kafka(flux, agency), key=IssuerKey(flux.key(signed_by or agency)))


async def ask(flux: Flux, agency: str, *requests: dict[str, Any]) -> list[Decision]:
    """Submit requests at once and return their decisions."""
    async with a_producer(flux, agency) as producer:
        return list(await asyncio.gather(*(producer.submit_and_wait(request) for request in requests)))


async def ends(
    flux: Flux, agency: str, runs: Collection[str], *, proven: bool = False, seconds: float = RUN_SECONDS
) -> dict[str, ReceivedEvent]:
    """Return the terminal event of each run, from the beginning of the topic; with their receipts if `proven`."""
    trust = Trust([flux.installation.verifier_key(agency)], agency) if proven else None
    found: dict[str, ReceivedEvent] = {}
    subscription = FluxSubscriber(
        agency, agency_kafka(flux, agency), start="beginning", trust=trust, receipt_timeout_s=seconds
    )
    async with (
        subscription as subscriber,
        asyncio.timeout(seconds),
    ):
        completions = subscriber.completions()
        while len(found) < len(set(runs)):
            event = await completions.poll()
            if event is not None and event.type in TERMINAL and getattr(event.body, "run_id", None) in runs:
                found[event.body.run_id] = event  # type: ignore[attr-defined]
    return found
