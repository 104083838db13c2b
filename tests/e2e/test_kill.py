"""`kill -9` of any one service in the middle of a run, then started again: nothing is lost or doubled.

The seed of the chaos suite. What "nothing" means is said by the counts here and by the oracle afterwards.
"""

from __future__ import annotations

import asyncio
import secrets

import pytest

from flux_devkit.asking import a_request, ask, ends, texts
from flux_devkit.flux import Flux
from flux_devkit.installation import SERVICES

AGENCY = "national-archives"


@pytest.mark.parametrize("victim", SERVICES)
async def test_a_killed_service_costs_time_and_nothing_else(flux: Flux, victim: str) -> None:
    """Three runs are under way when the service dies; all complete, once, with every object accounted for."""
    requests = []
    for number in range(3):
        source = texts(flux.folder("archives", AGENCY, f"{victim}-{number}"), 60)
        request_id = f"kill-{victim}-{number}-{secrets.token_hex(3)}"
        requests.append(a_request(flux, AGENCY, request_id, source, partitioning={"objects_max": 6}))
    asking = asyncio.create_task(ask(flux, AGENCY, *requests))
    if victim != "ingest":
        await asking
    await asyncio.sleep(0.4)
    flux.services[victim].kill()
    await asyncio.sleep(0.5)
    await asyncio.to_thread(flux.services[victim].start)
    decisions = await asking
    runs = {decision.submitted.run_id for decision in decisions}
    found = await ends(flux, AGENCY, runs, proven=True)

    assert {end.type for end in found.values()} == {"flux.run.completed.v1"}
    for end in found.values():
        counts = end.body.counts  # type: ignore[attr-defined]
        assert (counts.read, counts.written, counts.rejected) == (60, 60, 0)
