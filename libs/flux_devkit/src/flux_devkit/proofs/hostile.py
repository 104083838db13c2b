"""`python -m flux_devkit.proofs.hostile`: 10,000 hostile records of 105 kinds among 1,000 good ones, on a live lane.

Everything runs for real: Kafka, PostgreSQL, one ingest process. Records come at a steady rate in a shuffled order whose
seed is printed; heavy kinds (megabytes, bombs, thousands of headers) are a small share. At the end come, as fast as they can be
sent, kilobytes that unfold to three quarters of a gigabyte, each record just below a bound, on all Kafka partitions. What must
hold: each good one is accepted, each hostile one has its one answer, ingest's memory stays within its bound, and a good one's
answer at the steady rate is not late. About four minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from flux_devkit.finding import Finding, report
from flux_devkit.home import locate
from flux_devkit.proofs.edge import KAFKA_PARTITIONS, Edge, Place, edge, load, percentile
from flux_devkit.proofs.forging import HOST, NEIGHBOUR, Forger
from flux_devkit.proofs.hostile_kinds import JUST_UNDER, KINDS, HostileKind
from flux_devkit.servers import Place as ServersPlace
from flux_devkit.servers import Servers
from flux_devkit.stack import Stack

HOSTILE: Final = 10_000
GOOD: Final = 1_000
RATE: Final = 75.0  # records a second, good and hostile together; the attacker and the servers share the machine
HEAVY_SHARE: Final = 0.01  # of the hostile ones
KINDS_MIN: Final = 40
P99_MS: Final = 500.0
BURST: Final = 14  # of each kind that is just under a bound, on each Kafka partition
# What three busy lanes may hold (kafka/holding.py): what waits and is worked, a batch that unfolds, and as much again.
GROWTH_BYTES: Final = 128 * 2**20
ANSWER_SECONDS: Final = 120.0
MIB: Final = 2**20

Sent = tuple[HostileKind | None, Place]


def schedule(seed: int, hostile: int, good: int) -> list[HostileKind | None]:
    """Return what is sent, in order: None is a good request. Every kind occurs."""
    drawn = random.Random(seed)
    light, heavy = ([kind for kind in KINDS if kind.heavy is wanted] for wanted in (False, True))
    rare = max(len(heavy), int(hostile * HEAVY_SHARE))
    kinds = [heavy[n % len(heavy)] for n in range(rare)] + [light[n % len(light)] for n in range(hostile - rare)]
    order: list[HostileKind | None] = [*kinds, *[None] * good]
    drawn.shuffle(order)
    return order


async def opened(running: Edge) -> Forger:
    """Return a forger whose opening request was accepted: a token is spent, an id is taken."""
    forger = Forger(running.installation.keys)
    await running.answered([await running.send(HOST.agency_id, forger.opening())], ANSWER_SECONDS)
    return forger


async def attack(running: Edge, forger: Forger, order: Sequence[HostileKind | None], rate: float) -> list[Sent]:
    """Send everything in order, and wait for all answers."""
    makes = [forger.good if kind is None else partial(kind.make, forger) for kind in order]
    places = await running.send_all(((HOST.agency_id, make) for make in makes), rate)
    await running.answered(places, ANSWER_SECONDS)
    return list(zip(order, places, strict=True))


async def burst(running: Edge, forger: Forger, number: int) -> list[Sent]:
    """Send so many records of each kind that is just under a bound to each Kafka partition, at once; wait for all answers."""
    sent: list[Sent] = []
    for kind in JUST_UNDER:
        made = kind.make(forger)  # the same bytes for all: what they ask for is refused before that is looked at
        numbers = [n % KAFKA_PARTITIONS for n in range(number * KAFKA_PARTITIONS)]
        places = [running.send(HOST.agency_id, made, kafka_partition=n) for n in numbers]
        sent += [(kind, place) for place in await asyncio.gather(*places)]
    await running.answered([place for _, place in sent], ANSWER_SECONDS)
    return sent


def wrong(running: Edge, sent: Sequence[Sent]) -> dict[str, int]:
    """Return how many records of each kind have another answer than theirs, or not exactly one."""
    found: Counter[str] = Counter()
    for kind, place in sent:
        expected = ("flux.run.accepted.v1", None) if kind is None else (kind.answer, kind.code.value)
        if (said := running.said(place)) != [expected]:
            found[f"{kind.name if kind else 'good'}: {said}"] += 1
    return dict(found)


async def prove(servers: Servers, folder: Path, seed: int) -> list[Finding]:
    """Attack, and say what was found."""
    async with edge(servers, folder, [HOST, NEIGHBOUR]) as running:
        forger = await opened(running)
        await attack(
            running, forger, [None] * 100, RATE
        )  # connections, compiled schemas and code are there from now on
        _, before = running.memory()
        sent = await attack(running, forger, schedule(seed, HOSTILE, GOOD), RATE)
        sent += await burst(running, forger, BURST)
        return list(findings(running, sent, before))


def findings(running: Edge, sent: Sequence[Sent], before: int) -> Iterator[Finding]:
    """Say what the attack showed."""
    amiss = wrong(running, sent)
    good = [place for kind, place in sent if kind is None]
    hostile = [kind for kind, _ in sent if kind is not None]
    bad_good = sum(number for name, number in amiss.items() if name.startswith("good:"))
    bad_hostile = sum(amiss.values()) - bad_good
    yield Finding("good requests accepted", not bad_good, f"{len(good) - bad_good} of {len(good)}", "all")
    kinds = len({kind.name for kind in hostile})
    measured = f"{len(hostile) - bad_hostile} of {len(hostile)}, {kinds} kinds {_some(amiss)}".strip()
    yield Finding(
        "hostile records answered as their kind", not bad_hostile and kinds >= KINDS_MIN, measured, "all, 40 kinds"
    )
    now, most = running.memory()
    growth = f"+{(most - before) / MIB:.0f} MiB at most, from {before / MIB:.0f} to {now / MIB:.0f} MiB"
    yield Finding("memory of ingest", most - before <= GROWTH_BYTES, growth, f"+{GROWTH_BYTES / MIB:.0f} MiB")
    waits = running.latencies(good)
    p50, p99 = percentile(waits, 0.5), percentile(waits, 0.99)
    measured = f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, most {waits[-1]:.0f} ms at {RATE:.0f} records/s, {load()}"
    yield Finding("decision on a good request among hostile ones", p99 < P99_MS, measured, f"p99 {P99_MS:.0f} ms")
    yield Finding("ingest lives and is ready", running.service.ready(), "asked at the end", "ready")


def _some(amiss: dict[str, int]) -> str:
    return "; ".join(f"{number} × {name}" for name, number in sorted(amiss.items())[:3])


def main() -> int:
    """Prove it on servers of its own; 0 if everything holds."""
    parser = argparse.ArgumentParser(prog="python -m flux_devkit.proofs.hostile", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    seed: int = parser.parse_args().seed
    with tempfile.TemporaryDirectory(prefix="flux-hostile-") as name:
        folder = Path(name)
        with Stack(ServersPlace(locate(), folder / "servers", folder)) as servers:
            return report(asyncio.run(prove(servers, folder / "edge", seed)))


if __name__ == "__main__":
    sys.exit(main())
