"""`python -m flux_devkit.proofs.flood`: one agency floods at ten times its quota; another's decisions are no later for it.

One ingest process, two agencies of one shard, so that they share the relay, too. In calm times both keep to what they may:
the other agency has as many refusals, or repetitions, as its quota. Calm and flooded times take turns, and each
side is its median turn, so that a machine that is busy with other things for a while is busy for both. The bound is on the
ratio of the neighbour's p99; beside it stand the p99 of all turns together and the worst turn, which such times do not leave
alone. There are two floods: one of all kinds of refusals, and one of a single accepted request, again and again, which has an
answer of its own each time. About six minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from flux_common.contracts.catalogue import RUN_REPEATED
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


def again(forger: Forger) -> Iterator[Callable[[], Forged]]:
    """Yield the record that was accepted first, for ever."""
    return itertools.repeat(forger.opening)


def of(agency_id: str, makes: Iterable[Callable[[], Forged]], number: int) -> list[tuple[str, Callable[[], Forged]]]:
    """Return so many records of an agency, still to be made."""
    return [(agency_id, make) for make in itertools.islice(makes, number)]


async def turn(running: Edge, neighbour: Forger, junk: Iterator[Callable[[], Forged]], rate: float) -> Measured:
    """Let the neighbour ask at its rate, and the other agency's junk run beside it; wait for everybody's answers."""
    good = of(NEIGHBOUR.agency_id, itertools.repeat(neighbour.good), int(GOOD_RATE * SECONDS))
    some = of(FLOODING.agency_id, junk, int(rate * SECONDS))
    asked, flooded = await asyncio.gather(running.send_all(good, GOOD_RATE), running.send_all(some, rate))
    await running.answered([*asked, *flooded], ANSWER_SECONDS)
    return Measured(running.latencies(asked), flooded)


async def turns(
    running: Edge, neighbour: Forger, junk: Callable[[], Iterator[Callable[[], Forged]]]
) -> tuple[list[Measured], list[Measured]]:
    """Measure calm and flooded turns, one after the other; the first of each only warms up."""
    sides: tuple[list[Measured], list[Measured]] = ([], [])
    for _ in range(1 + TURNS):
        for side, rate in zip(sides, (CALM_RATE, FLOOD_RATE), strict=True):
            side.append(await turn(running, neighbour, junk(), rate))
    return sides[0][1:], sides[1][1:]


async def prove(servers: Servers, folder: Path) -> list[Finding]:
    """Measure both floods, and say what was found."""
    async with edge(servers, folder, [FLOODING, NEIGHBOUR]) as running:
        keys = running.installation.keys
        flood, neighbour = Forger(keys, FLOODING, NEIGHBOUR), Forger(keys, NEIGHBOUR, FLOODING)
        await running.answered([await running.send(FLOODING.agency_id, flood.opening())], ANSWER_SECONDS)
        refusals = await turns(running, neighbour, partial(hostile, flood))
        repetitions = await turns(running, neighbour, partial(again, flood))
        return list(findings(running, refusals, repetitions))


Sides = tuple[Sequence[Measured], Sequence[Measured]]


def findings(running: Edge, refusals: Sides, repetitions: Sides) -> Iterator[Finding]:
    """Say what the turns showed."""
    yield beside("a neighbour's decisions under a flood of ten quotas", *refusals)
    yield _braked(running, refusals[1])
    yield beside("a neighbour's decisions while one request comes again and again", *repetitions)
    yield _repeated(running, repetitions[1])
    yield Finding("ingest lives and is ready", running.service.ready(), "asked at the end", "ready")


def beside(item: str, calm: Sequence[Measured], under: Sequence[Measured]) -> Finding:
    """Return the growth of the neighbour's p99: of the median turns, which is bounded, and of all turns together."""
    without, flooded = (statistics.median(one.p99 for one in side) for side in (calm, under))
    pooled = [percentile(sorted(wait for one in side for wait in one.waits), 0.99) for side in (calm, under)]
    worst = [max(one.p99 for one in side) for side in (calm, under)]
    measured = (
        f"{flooded / without:.2f} times, p99 of the median turn {without:.0f} ms calm and {flooded:.0f} ms flooded;"
        f" of all turns together {pooled[1] / pooled[0]:.2f} times, {pooled[0]:.0f} and {pooled[1]:.0f} ms;"
        f" of the worst {worst[0]:.0f} and {worst[1]:.0f} ms; {load()}"
    )
    return Finding(item, flooded / without < GROWTH, measured, f"{GROWTH:g} times, of the median turns")


def _braked(running: Edge, under: Sequence[Measured]) -> Finding:
    sent = [place for one in under for place in one.flooded]
    told = [answer for place in sent for answer in running.answers[place]]
    shared = sum(answer.code == "INTAKE_FLOODED" for answer in told)
    measured = f"{len(sent)} refused, {shared} of them by {running.floods} shared decisions"
    minutes = {int(running.sent[place] // 60) for place in sent}
    held = len(told) == len(sent) and shared >= len(sent) - len(minutes) * QUOTA
    return Finding("the flood is braked, each record answered once", held, measured, f"{QUOTA} a minute by themselves")


def _repeated(running: Edge, under: Sequence[Measured]) -> Finding:
    sent = [place for one in under for place in one.flooded]
    told = Counter(answer.type for place in sent for answer in running.answers[place])
    measured = f"{len(sent)} repetitions, " + ", ".join(f"{number} {kind}" for kind, number in sorted(told.items()))
    waited = percentile(running.latencies(sent), 0.99) / 1000
    held = told == {RUN_REPEATED.ce_type: len(sent)}
    return Finding("each repetition has its own plain answer", held, f"{measured}, p99 {waited:.1f} s", "one for each")


def main() -> int:
    """Prove it on servers of its own; 0 if everything holds."""
    argparse.ArgumentParser(prog="python -m flux_devkit.proofs.flood", description=__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="flux-flood-") as name:
        folder = Path(name)
        with Stack(ServersPlace(locate(), folder / "servers", folder)) as servers:
            return report(asyncio.run(prove(servers, folder / "edge")))


if __name__ == "__main__":
    sys.exit(main())
