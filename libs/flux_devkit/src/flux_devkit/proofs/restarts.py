"""Restarts of every service by SIGTERM, as roll-outs do, while runs are under way.

Two agencies ask for runs without a pause. Meanwhile one service after the other is stopped as an orchestrator stops it and
started again. What must hold: each exit is 0 inside the grace, `/readyz` fails at once, the groups are left, every run
that was accepted completes, and the oracle finds nothing lost, doubled or out of place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from flux_devkit.draining import Stop, stop_watched
from flux_devkit.finding import Finding
from flux_devkit.flux import Flux
from flux_devkit.home import locate
from flux_devkit.installation import SERVICES, Installation
from flux_devkit.oracle import examine
from flux_devkit.servers import Place
from flux_devkit.stack import Stack
from flux_devkit.underway import load

TIMES: Final = 20
GRACE_S: Final = 30.0  # FLUX_OPS_DRAIN_GRACE_MS, as it comes
QUICK: Final = {"FLUX_DISPATCH_BACKOFF_MIN_S": "0.2"}


@dataclass
class Seen:
    """What the restarts showed."""

    stops: list[Stop] = field(default_factory=list)
    ends: dict[str, str] = field(default_factory=dict)  # the type of the last event of each run


async def restarted_under_load(flux: Flux, times: int) -> Seen:
    """Restart each service `times` times while runs are asked for and done."""
    seen = Seen()
    async with load(flux) as seen.ends:
        for _ in range(times):
            for name in SERVICES:
                await asyncio.sleep(0.5)
                seen.stops.append(await asyncio.to_thread(_restart, flux, name))
    return seen


def _restart(flux: Flux, name: str) -> Stop:
    service = flux.services[name]
    stop = stop_watched(flux.installation, service)
    service.start()
    return stop


def restarts(folder: Path) -> Iterator[Finding]:
    """Yield the findings of twenty restarts of each service, on servers of their own."""
    with Stack(Place(locate(), folder / "servers", folder / "logs")) as servers:
        installation = Installation(
            servers, folder / "keys", folder / "data", "restarts", overrides={"checkpoint": QUICK}
        )
        with Flux(installation, folder / "logs") as flux:
            seen = asyncio.run(restarted_under_load(flux, TIMES))
            report = examine(installation, settled=True, quiescent=True)
    yield from findings(seen)
    completed = report.figures.get("runs COMPLETED", 0)
    measured = f"{completed} runs, {report.figures['records']} records, {len(report.violations)} violations"
    yield Finding("restarts: oracle", report.clean, measured, "0 violations")


def findings(seen: Seen) -> Iterator[Finding]:
    """Yield what the restarts showed."""
    stops = seen.stops
    bad = [stop for stop in stops if stop.status != 0]
    yield Finding("restarts: exit codes", not bad, f"{len(stops) - len(bad)} of {len(stops)} are 0", "all")
    late = [stop for stop in stops if not stop.unready_at_once]
    measured = f"{len(stops) - len(late)} of {len(stops)} at once"
    yield Finding("restarts: /readyz fails on SIGTERM", not late, measured, "all")
    stayed = [stop for stop in stops if any(stop.members.values())]
    yield Finding("restarts: groups left", not stayed, f"{len(stayed)} processes still named", "none")
    longest = max(stops, key=lambda stop: stop.seconds)
    measured = f"{longest.seconds:.1f} s, {longest.service}"
    yield Finding("restarts: longest drain", longest.seconds <= GRACE_S, measured, f"{GRACE_S:.0f} s")
    done = [end for end in seen.ends.values() if end == "flux.run.completed.v1"]
    measured = f"{len(done)} of {len(seen.ends)} runs completed"
    yield Finding("restarts: runs", len(done) == len(seen.ends) > 0, measured, "all")
