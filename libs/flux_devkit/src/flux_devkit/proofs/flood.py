"""`python -m flux_devkit.proofs.flood`: one agency floods at ten times its quota; another's decisions are no later for it.

One ingest process, two agencies of one shard, so that they share the relay, too. In calm times both keep to what they may:
the other agency has as many refusals as its quota. Calm and flooded times take turns, and each
side is its median turn, so that a machine that is busy with other things for a while is busy for both. The bound is on the
ratio of the neighbour's p99. The flood is of all kinds of refusals. About three minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from flux_devkit.finding import Finding, report
from flux_devkit.home import locate
from flux_devkit.proofs.edge import Edge, Place, edge, load, percentile
from flux_devkit.proofs.forging import HOST, NEIGHBOUR, Forged, Forger
from flux_devkit.proofs.hostile_kinds import KINDS
from flux_devkit.servers import Place as ServersPlace
from flux_devkit.servers import Servers
from flux_devkit.stack import Stack

QUOTA: Final = 600  # refusals a minute: what an agency has that says nothing else
CALM_RATE: Final = QUOTA / 60
FLOOD_RATE: Final = 10 * CALM_RATE
GOOD_RATE: Final = 20.0
SECONDS: Final = 8  # of a turn
TURNS: Final = 8  # of each side
GROWTH: Final = 2.0
ANSWER_SECONDS: Final = 120.0
FLOODING: Final = replace(HOST, rejects_per_minute=QUOTA)


@dataclass(frozen=True, slots=True)
class Measured:
    """The neighbour's waits in one turn, in milliseconds, ascending; and what was sent by the flood."""

    waits: Sequence[float]
    flooded: Sequence[Place] = ()

    @property
    def p99(self) -> float:
        """Return what 99 of 100 do not exceed."""
        return percentile(self.waits, 0.99)


def hostile(forger: Forger) -> Iterator[Callable[[], Forged]]:
    """Yield hostile records for ever, one kind after the other, without those that are heavy to send."""
    light = [kind for kind in KINDS if not kind.heavy]
    return (partial(kind.make, forger) for kind in itertools.cycle(light))


def of(agency_id: str, makes: Iterable[Callable[[], Forged]], number: int) -> list[tuple[str, Callable[[], Forged]]]:
    """Return so many records of an agency, still to be made."""
    return [(agency_id, make) for make in itertools.islice(makes, number)]


async def turn(running: Edge, neighbour: Forger, flood: Forger, rate: float) -> Measured:
    """Let the neighbour ask at its rate, and refusals run beside it at theirs; wait for everybody's answers."""
    good = of(NEIGHBOUR.agency_id, itertools.repeat(neighbour.good), int(GOOD_RATE * SECONDS))
    junk = of(FLOODING.agency_id, hostile(flood), int(rate * SECONDS))
    asked, flooded = await asyncio.gather(running.send_all(good, GOOD_RATE), running.send_all(junk, rate))
    await running.answered([*asked, *flooded], ANSWER_SECONDS)
    return Measured(running.latencies(asked), flooded)


async def prove(servers: Servers, folder: Path) -> list[Finding]:
    """Measure calm, flood and calm, and say what was found."""
    async with edge(servers, folder, [FLOODING, NEIGHBOUR]) as running:
        keys = running.installation.keys
        flood, neighbour = Forger(keys, FLOODING, NEIGHBOUR), Forger(keys, NEIGHBOUR, FLOODING)
        await running.answered([await running.send(FLOODING.agency_id, flood.opening())], ANSWER_SECONDS)
        for rate in (CALM_RATE, FLOOD_RATE):  # everything is warm from now on
            await turn(running, neighbour, flood, rate)
        calm, under = [], []
        for _ in range(TURNS):
            calm.append(await turn(running, neighbour, flood, CALM_RATE))
            under.append(await turn(running, neighbour, flood, FLOOD_RATE))
        return list(findings(running, calm, under))


def findings(running: Edge, calm: Sequence[Measured], under: Sequence[Measured]) -> Iterator[Finding]:
    """Say what the turns showed."""
    without, beside = (statistics.median(one.p99 for one in side) for side in (calm, under))
    ratio = beside / without
    measured = f"{ratio:.2f} times, p99 {without:.0f} ms calm and {beside:.0f} ms flooded, {load()}"
    yield Finding("a neighbour's decisions under a flood of ten quotas", ratio < GROWTH, measured, f"{GROWTH:g} times")
    sent = [place for one in under for place in one.flooded]
    told = [answer for place in sent for answer in running.answers[place]]
    shared = sum(answer.code == "INTAKE_FLOODED" for answer in told)
    measured = f"{len(sent)} refused, {shared} of them by {running.floods} shared decisions"
    minutes = {int(running.sent[place] // 60) for place in sent}
    held = len(told) == len(sent) and shared >= len(sent) - len(minutes) * QUOTA
    yield Finding("the flood is braked, each record answered once", held, measured, f"{QUOTA} a minute by themselves")
    yield Finding("ingest lives and is ready", running.service.ready(), "asked at the end", "ready")


def main() -> int:
    """Prove it on servers of its own; 0 if everything holds."""
    argparse.ArgumentParser(prog="python -m flux_devkit.proofs.flood", description=__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="flux-flood-") as name:
        folder = Path(name)
        with Stack(ServersPlace(locate(), folder / "servers", folder)) as servers:
            return report(asyncio.run(prove(servers, folder / "edge")))


if __name__ == "__main__":
    sys.exit(main())
