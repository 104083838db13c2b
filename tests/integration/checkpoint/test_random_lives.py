"""Random lives: whatever workers, commands, clocks and owners do, the invariants hold; and once they behave, every run ends.

A life is a seed. Workers crash, repeat themselves, reorder, lie about their place, disagree, fail; items are delivered
twice; commands come at any time; lanes change hands; two dispatchers take turns; the lane's clock jumps. After every few
steps the invariants are asked of the tables and of everything published (`Bench.check`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest

from flux_common.contracts import catalogue
from flux_common.kernel.errors import Fenced
from flux_common.kernel.positions import TopicPartition

from .conftest import AGENCIES, Bench
from .records import Written, a_slice, admitted, answer, command, report, started

SEEDS = range(8)
STEPS = 120
SETTLED_WITHIN = 60
FINAL = {"COMPLETED", "CANCELLED"}


@dataclass
class Worker:
    """A process with one item in hand; `says` returns what it reports next, None when it has no more to say."""

    work: dict[str, Any]
    partitions: list[int]
    random: Random
    honest: bool = False
    seq: int = 0
    cursor: int = 0
    head: str = ""
    begun: bool = False
    said: list[Written] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.seq = self.work["next_seq"] - 1
        self.cursor, self.head = self.work["cursor"], self.work.get("chain_head") or ""

    def says(self) -> Written | None:
        """Return the next report: mostly honest, sometimes an old one, sometimes a wrong one."""
        mood = 1.0 if self.honest else self.random.random()
        if mood < 0.05 and self.said:
            return self.random.choice(self.said)
        if mood < 0.10:
            return self._fails()
        if mood < 0.13:
            return report(self.work, catalogue.ALIVE, counter=1)
        if mood < 0.15:
            return self._lies()
        if not self.begun:
            self.begun = True
            return self._say(started(self.work))
        return self._goes_on()

    def _goes_on(self) -> Written | None:
        if self.work["kind"] != "extract":
            done = [one for one in answer(self.work, self.partitions) if one not in self.said]
            return self._say(done[0]) if done else None
        count = self.work["range"]["count"]
        if self.cursor == count:
            self.cursor += 1
            return self._say(report(self.work, catalogue.FINISHED, last_seq=self.seq, head=self.head))
        return self._slice(min(2, count - self.cursor)) if self.cursor < count else None

    def _slice(self, read: int) -> Written:
        self.seq, self.cursor = self.seq + 1, self.cursor + read
        differs = not self.honest and self.random.random() < 0.03  # another digest than an honest worker's
        rejected = int(self.work["number"] == 1)
        one, self.head = a_slice(
            self.work, self.seq, self.head, self.cursor, read, rejected=rejected, bytes_out=6 if differs else 5
        )
        return self._say(one)

    def _fails(self) -> Written:
        lasting = self.random.random() < 0.1
        code = (
            "SOURCE_MISSING" if lasting else self.random.choice(["SOURCE_UNAVAILABLE", "VERSION_MISMATCH", "DROPPED"])
        )
        said = {"last_seq": self.seq, "code": code, "cause": "infrastructure", "transient": not lasting}
        return report(self.work, catalogue.FAILED, **said)

    def _lies(self) -> Written:
        wrong = self.work | {"term": self.work["term"] + self.random.choice([-1, 0, 1])}
        if wrong["term"] < 1 or self.work["kind"] != "extract":
            return [("ce_id", b"x"), ("ce_type", b"nothing")], b"\xff"
        return a_slice(wrong, self.seq + self.random.choice([1, 2]), "99" * 32, 1, 1, rejected=0)[0]

    def _say(self, one: Written) -> Written:
        self.said.append(one)
        return one


@dataclass
class Life:
    """One seed's installation: runs of two agencies, and everything that happens to them."""

    bench: Bench
    random: Random
    partitions: dict[str, list[int]] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)
    given: dict[str, dict[str, Any]] = field(default_factory=dict)  # the last dispatch of each item, as Kafka keeps it
    in_flight: list[Written] = field(default_factory=list)
    ended: dict[UUID, str] = field(default_factory=dict)
    commands: int = 0

    async def begin(self) -> None:
        """Admit the runs."""
        records = []
        for n in range(4):
            name, agency = f"r-{n}", AGENCIES[n % 2]
            self.owners[name] = agency
            self.partitions[name] = [self.random.randint(1, 5) for _ in range(self.random.randint(1, 4))]
            window = self.random.randint(1, 3)
            policy = {"policy": "skip", "ratio_max": self.random.choice([1.0, 1.0, 0.2])}
            records.append(admitted(name, agency, run_window=window, agency_window=4, on_reject=policy))
        await self.bench.runs(*records, records[0])

    async def step(self) -> None:
        """Let one thing happen."""
        acts: list[tuple[int, Callable[[], Any]]] = [
            (30, self.speak),
            (30, self.deliver),
            (20, self.dispatch),
            (10, self.all_at_once),
            (6, self.order),
            (4, self.crash),
            (3, self.time_passes),
            (2, self.lane_changes_hands),
        ]
        await self.random.choices([act for _, act in acts], [weight for weight, _ in acts])[0]()

    async def speak(self) -> None:
        """Let some workers report."""
        for worker in self.random.sample(self.workers, min(3, len(self.workers))):
            one = worker.says()
            if one is None:
                self.workers.remove(worker)
            else:
                self.in_flight.append(one)

    async def deliver(self) -> None:
        """Apply a batch: some of what is in flight, in its order or in none, now and then twice."""
        if not self.in_flight:
            return
        count = self.random.randint(1, min(12, len(self.in_flight)))
        batch, self.in_flight = self.in_flight[:count], self.in_flight[count:]
        if self.random.random() < 0.15:
            self.random.shuffle(batch)
        if self.random.random() < 0.1:
            self.in_flight += batch
        await self.bench.reports(*batch)

    async def dispatch(self) -> None:
        """Let the dispatchers work, and workers take what they hand out; one item in five is delivered twice."""
        await (self.bench.look if self.random.random() < 0.5 else self.bench.dispatch)(*AGENCIES)
        for work in await self.handed_out():
            for _ in range(self.random.choice([1, 1, 1, 1, 2])):
                self.workers.append(Worker(work, self.partitions[work["request_id"]], self.random))

    async def handed_out(self) -> list[dict[str, Any]]:
        """Return the work that was dispatched since the last look."""
        works = await self.bench.work()
        self.given |= {f"{work['run_id']}/{work['kind']}/{work['number']}": work for work in works}
        return works

    async def all_at_once(self) -> None:
        """Let reports, a command and the dispatchers of both agencies meet in the database."""
        await asyncio.gather(self.deliver(), self.order(), *(self.bench.look(agency) for agency in AGENCIES))

    async def order(self) -> None:
        """Give some run a command; most are refused."""
        self.commands += 1
        name = self.random.choice([*self.owners, "nothing"])
        what = self.random.choice(["pause", "resume", "resume", "retry", "retry", "cancel"])
        await self.bench.runs(command(what, f"c-{self.commands}", name, self.owners.get(name, AGENCIES[0])))

    async def crash(self) -> None:
        """Let a worker die without a word."""
        if self.workers:
            self.workers.remove(self.random.choice(self.workers))

    async def time_passes(self) -> None:
        """Let the lane's clock go on: whoever was silent has stalled."""
        self.bench.stamp += timedelta(minutes=self.random.choice([1, 6, 40]))
        await self.bench.execute("UPDATE lanes SET watermark = $1", self.bench.stamp)

    async def lane_changes_hands(self) -> None:
        """Another process takes a lane; the old one's batch changes nothing."""
        topic = catalogue.PROGRESS.name
        stale = self.bench.taken.get(topic)
        if stale is None or not self.in_flight:
            return
        fresh = await self.bench.lanes.take(TopicPartition(topic, 0), topic_id="id", log_start=0, log_end=10**6)
        with pytest.raises(Fenced):
            await self.bench.reports(*self.in_flight[:3])
        self.bench.taken[topic] = fresh

    async def check(self) -> None:
        """Ask the invariants, and that what was final is as it was."""
        await self.bench.check()
        states = dict(await self.bench.rows("SELECT run_id, state FROM flux.runs"))
        assert {run: states[run] for run in self.ended} == self.ended
        self.ended = {run: state for run, state in states.items() if state in FINAL}

    async def settle(self) -> None:
        """Let everybody behave: deliver what is in flight, work what was handed out, resume what is paused."""
        self.workers.clear()
        await self.bench.reports(*self.in_flight, *self.in_flight)
        works = list(self.given.values())  # Kafka delivers again what nobody finished
        for turn in range(SETTLED_WITHIN):
            for work in works:
                worker = Worker(work, self.partitions[work["request_id"]], self.random, honest=True)
                while (one := worker.says()) is not None:
                    await self.bench.reports(one)
            open_runs = await self.bench.rows(
                "SELECT request_id, agency_id, state FROM flux.runs WHERE state NOT IN ('COMPLETED', 'CANCELLED', 'FAILED')"
            )
            if not open_runs:
                return
            await self.bench.execute("UPDATE flux.runs SET cancel_deadline = now() WHERE state = 'CANCELLING'")
            resumed = [command("resume", f"s-{turn}-{name}", name, agency) for name, agency, _ in open_runs]
            await self.bench.runs(*resumed)
            await self.time_passes()
            await self.bench.look(*AGENCIES)
            works = await self.handed_out()
        raise AssertionError(f"not settled: {open_runs}")


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_happens_the_invariants_hold_and_every_run_ends(bench: Bench, seed: int) -> None:
    """I3, I6, I8, I9 and the windows after every few steps; in the end every run is terminal, each attempt told once."""
    life = Life(bench, Random(seed))
    await life.begin()
    for n in range(STEPS):
        await life.step()
        if n % 10 == 0:
            await life.check()
    await life.settle()
    await life.check()
    states = [state for (state,) in await bench.rows("SELECT state FROM flux.runs")]

    assert len(states) == 4
    assert set(states) <= {"COMPLETED", "CANCELLED", "FAILED"}
