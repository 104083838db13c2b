"""Three agencies at once: 30 runs, 2,000 objects; every request decided, every run completed once, counts reconcile."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from flux_client.development import EXAMPLE_AGENCIES
from flux_devkit.asking import a_request, ask, ends
from flux_devkit.demo.story import path_of
from flux_devkit.flux import Flux
from flux_devkit.synthetic import Recipe, Written, write

RUNS_EACH = 10
OBJECTS = 2000


async def test_thirty_runs_of_three_agencies_complete_once_with_their_own_counts(flux: Flux) -> None:
    """In each run: planned = read = written + rejected; the spoiled files are rejected, exactly those. The oracle reads all."""
    wanted: dict[str, dict[str, Written]] = {}
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
            wanted.setdefault(name, {})[request["request_id"]] = written
        requests[name] = asked
    decisions = dict(
        zip(requests, await asyncio.gather(*(ask(flux, name, *requests[name]) for name in requests)), strict=True)
    )
    runs = {name: {one.submitted.run_id for one in found} for name, found in decisions.items()}
    ended = dict(zip(runs, await asyncio.gather(*(ends(flux, name, runs[name]) for name in runs)), strict=True))

    assert all(one.accepted for found in decisions.values() for one in found)
    for name, found in ended.items():
        seen = {end.body.request_id: end.body for end in found.values()}  # type: ignore[attr-defined]
        assert {end.type for end in found.values()} == {"flux.run.completed.v1"}
        assert {key: counts_of(body) for key, body in seen.items()} == {k: expected(w) for k, w in wanted[name].items()}
        assert {key: rejected(body) for key, body in seen.items()} == {k: w.spoiled for k, w in wanted[name].items()}
    assert sum(len(written.files) for agency in wanted.values() for written in agency.values()) == OBJECTS
    assert all(any(written.spoiled for written in agency.values()) for agency in wanted.values())


def counts_of(body: Any) -> tuple[int, int, int, int]:
    """Return what a completion says was planned, read, written and rejected."""
    return (body.objects, body.counts.read, body.counts.written, body.counts.rejected)


def expected(written: Written) -> tuple[int, int, int, int]:
    """Return what it should say of an archive."""
    every, spoiled = len(written.files), len(written.spoiled)
    return (every, every, every - spoiled, spoiled)


def rejected(body: Any) -> frozenset[str]:
    """Return the keys that the dataset's listings name as rejected."""
    dataset = path_of(body.manifest.uri).parent
    listings = (listing.read_text() for listing in (dataset / "rejects").glob("*.ndjson"))
    return frozenset(json.loads(line)["key"] for text in listings for line in text.splitlines())
