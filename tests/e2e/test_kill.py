"""`kill -9` of any one service in the middle of a run, then started again: nothing is lost or doubled.

The seed of the chaos suite. What "nothing" means is said by the counts here and by the oracle afterwards. That it is the
middle is made so, by holding a table against writers, and asserted after the kill, before the table is let go.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection
from typing import Any

import pytest

from flux_client.streams import EventStream, FollowerSource
from flux_common.contracts.catalogue import REQUESTS
from flux_devkit.asking import a_request, ask, ends, texts
from flux_devkit.flux import Flux
from flux_devkit.underway import WIDE_OBJECTS, a_wide_request, held_midway, holding

AGENCY = "national-archives"
OBJECTS = 60


def a_narrow_request(flux: Flux, name: str) -> dict[str, Any]:
    """Return the request for a run of ten partitions."""
    source = texts(flux.folder("archives", AGENCY, "kill"), OBJECTS)
    return a_request(flux, AGENCY, name, source, partitioning={"objects_max": 6})


@pytest.mark.parametrize("victim", ["transform", "checkpoint", "audit"])
async def test_a_killed_service_costs_time_and_nothing_else(flux: Flux, victim: str) -> None:
    """Three runs are under way when it dies, one of them read in part; all complete, once, with every object counted."""
    name = f"kill-{victim}-{secrets.token_hex(3)}"
    narrow = [a_narrow_request(flux, f"{name}-{number}") for number in range(2)]
    decisions = await ask(flux, AGENCY, a_wide_request(flux, AGENCY, name), *narrow)
    runs = [decision.submitted.run_id for decision in decisions]
    async with held_midway(flux, runs[0]) as held:
        flux.services[victim].kill()
        at_the_kill = await held.progress(runs[0])
    await begun_again(flux, victim)

    assert at_the_kill is not None
    assert at_the_kill.midway, at_the_kill
    assert await counted(flux, runs) == [WIDE_OBJECTS, OBJECTS, OBJECTS]


async def test_intake_that_is_killed_between_request_and_decision_answers_all(flux: Flux) -> None:
    """One request is decided and two are only written when it dies, in the middle of their commit; all get their run, once."""
    names = [f"kill-ingest-{number}-{secrets.token_hex(3)}" for number in range(3)]
    first, *others = [a_narrow_request(flux, name) for name in names]
    decisions = await ask(flux, AGENCY, first)
    async with holding(flux) as held:
        await held.hold("requests")
        asking = asyncio.create_task(ask(flux, AGENCY, *others))
        await held.waits("flux_ingest")
        await written(flux, names)
        flux.services["ingest"].kill()
        decided = await held.session.fetch(
            "SELECT request_id FROM flux_ingest.requests WHERE request_id = ANY($1)", names
        )
    await begun_again(flux, "ingest")
    decisions += await asking

    assert [row["request_id"] for row in decided] == names[:1]
    assert await counted(flux, [decision.submitted.run_id for decision in decisions]) == [OBJECTS] * 3


async def begun_again(flux: Flux, victim: str) -> None:
    """Start a service that was killed, when the others have gone on without it for a while."""
    await asyncio.sleep(0.5)
    await asyncio.to_thread(flux.services[victim].start)


async def written(flux: Flux, names: Collection[str]) -> None:
    """Read the requests until Kafka holds all of these."""
    missing = set(names)
    async with EventStream(FollowerSource(flux.installation.kafka(), REQUESTS.of(AGENCY), "beginning")) as stream:
        async for event in stream:
            missing.discard(event.body.request_id)  # type: ignore[attr-defined]
            if not missing:
                return


async def counted(flux: Flux, runs: list[str]) -> list[int]:
    """Wait for the ends of runs and their receipts; return how many objects each has read, if all were written."""
    found = await ends(flux, AGENCY, runs, proven=True)
    counts = [found[run].body.counts for run in runs]  # type: ignore[attr-defined]
    assert {end.type for end in found.values()} == {"flux.run.completed.v1"}
    assert [(each.written, each.rejected) for each in counts] == [(each.read, 0) for each in counts]
    return [each.read for each in counts]
