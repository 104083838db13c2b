"""One trace from request to receipt: every service's spans carry the trace id that the producer began."""

from __future__ import annotations

import json
import secrets

from flux_devkit.asking import a_producer, a_request, ends, texts
from flux_devkit.flux import Flux, wait_until
from flux_devkit.installation import SERVICES

AGENCY = "nasa"


async def test_every_service_continues_the_producers_trace(flux: Flux) -> None:
    """The traceparent of the request travels through outbox, work items and reports."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    request_id = f"traced-{span_id}"
    source = texts(flux.folder("archives", AGENCY, request_id), 3)
    async with a_producer(flux, AGENCY) as producer:
        submitted = await producer.submit(
            a_request(flux, AGENCY, request_id, source), traceparent=f"00-{trace_id}-{span_id}-01"
        )
    await ends(flux, AGENCY, [submitted.run_id], proven=True)
    folder = flux.installation.keys.parent

    def seen() -> set[str]:
        return {service for service in SERVICES if trace_id in (folder / f"{service}.spans").read_text()}

    wait_until("a span of each service in the trace", lambda: seen() == set(SERVICES), 15)
    lines = [line for service in SERVICES for line in (folder / f"{service}.spans").read_text().splitlines()]
    assert {json.loads(line)["name"] for line in lines if trace_id in line} >= {"work item", "dispatch"}
