"""Three agencies at once: 30 runs, 2,000 objects; every request decided, every run completed once, counts reconcile."""

from __future__ import annotations

import asyncio

from flux_client.development import EXAMPLE_AGENCIES
from flux_devkit.asking import a_request, ask, ends
from flux_devkit.flux import Flux
from flux_devkit.synthetic import Recipe, write

RUNS_EACH = 10
OBJECTS = 2000


async def test_thirty_runs_of_three_agencies_complete_once_with_their_own_counts(flux: Flux) -> None:
    """Σ over runs: read = planned = written; spoiled files are rejected, exactly those; the oracle reads all afterwards."""
    wanted: dict[str, dict[str, tuple[int, int]]] = {}
    requests = {}
    for place, agency in enumerate(EXAMPLE_AGENCIES):
        name = agency.agency_id
        asked = []
        for number in range(RUNS_EACH):
            folder = flux.folder("archives", name, f"run-{number}")
            count = OBJECTS // 30 + (1 if place * RUNS_EACH + number < OBJECTS % 30 else 0)
            written = write(Recipe(seed=1000 * place + number, texts=count, spoiled_ratio=0.02), folder)
            request = a_request(flux, name, f"run-{number}", folder, partitioning={"objects_max": 25})
            asked.append(request)
            wanted.setdefault(name, {})[request["request_id"]] = (len(written.files), len(written.spoiled))
        requests[name] = asked
    decisions = dict(
        zip(requests, await asyncio.gather(*(ask(flux, name, *requests[name]) for name in requests)), strict=True)
    )
    runs = {name: {one.submitted.run_id for one in found} for name, found in decisions.items()}
    ended = dict(zip(runs, await asyncio.gather(*(ends(flux, name, runs[name]) for name in runs)), strict=True))

    assert all(one.accepted for found in decisions.values() for one in found)
    for name, found in ended.items():
        seen = {end.body.request_id: end.body for end in found.values()}  # type: ignore[attr-defined]
        assert {key: (body.counts.read, body.counts.rejected) for key, body in seen.items()} == wanted[name]
        assert {end.type for end in found.values()} == {"flux.run.completed.v1"}
    assert sum(read for counts in wanted.values() for read, _ in counts.values()) == OBJECTS
