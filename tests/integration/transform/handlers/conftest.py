"""A worker, what it tells, what it commits, and a log of records to hand to it as a consumer would, one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from flux_common.contracts import catalogue
from flux_common.contracts.envelope import body_bytes
from flux_common.contracts.work import WorkFenced
from flux_common.kernel.clock import SystemClock
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Unavailable
from flux_common.kernel.ids import run_id
from flux_common.kernel.positions import Position, Received, TopicPartition
from flux_transform.adapters.fences import HeardFences
from flux_transform.domain.items import Item, Job, Outcome, PlanSummary
from flux_transform.domain.limits import DEFAULT_LIMITS
from flux_transform.handlers import worker as module
from flux_transform.handlers.worker import Drops, Worker
from flux_transform.ports import Failure

TP, OTHER = (TopicPartition(catalogue.WORK.name, n) for n in range(2))
LIMITS = replace(DEFAULT_LIMITS, slice_objects_max=2)
AGENCY = "national-archives"


@dataclass
class Reports:
    """Takes reports down; `hold` makes a verb wait until it is let go, `fails` makes the broker silent so many times."""

    told: list[tuple[str, str]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    fails: int = 0
    summaries: dict[str, PlanSummary] = field(default_factory=dict)

    async def _take(self, verb: str, item: Item) -> None:
        if verb in self.held:
            self.waiting.add(verb)
            await self.held[verb].wait()
        if self.fails:
            self.fails -= 1
            raise Unavailable(Code.BROKER_UNAVAILABLE, "no broker")
        self.told.append((verb, item.request_id or item.name))

    async def started(self, item: Item) -> None:
        """Take it down."""
        await self._take("started", item)

    async def alive(self, item: Item) -> None:
        """Take it down."""
        await self._take("alive", item)

    async def planned(self, item: Item, plan: PlanSummary) -> None:
        """Take it down."""
        self.summaries[item.run_id] = plan
        await self._take("planned", item)

    async def sliced(self, item: Item, seq: int, record: bytes) -> None:
        """Take it down."""
        await self._take("sliced", item)

    async def finished(self, item: Item, outcome: Outcome) -> None:
        """Take it down."""
        await self._take("finished", item)

    async def failed(self, item: Item, failure: Failure) -> None:
        """Take it down."""
        await self._take("failed", item)
        self.failures.append(failure)

    def hold(self, verb: str) -> asyncio.Event:
        """Let reports of this kind wait; set what is returned to let them go."""
        self.held[verb] = asyncio.Event()
        return self.held[verb]

    def count(self, verb: str) -> int:
        """Return how many reports of a kind were taken."""
        return sum(1 for each, _ in self.told if each == verb)


@dataclass
class Bench:
    """A worker, what it tells, what it commits, and a log of records to hand to it."""

    worker: Worker
    drops: Drops
    fences: HeardFences
    reports: Reports
    job: Job
    version: str
    travel: Callable[..., Any]
    commits: list[dict[TopicPartition, int]]
    refused: list[bool]

    def plan(self, name: str, **changes: Any) -> Item:
        """Return the plan item of a run."""
        base = Item(AGENCY, str(run_id(AGENCY, name)), name, 1, "plan", 0, 1, self.job)
        return replace(base, **changes)

    async def extract(self, name: str, **changes: Any) -> Item:
        """Plan a run beside the worker, take its source away, and return the extract item of its only partition."""
        source = Path(self.job.source_uri.removeprefix("file://"))
        self.deliver(self.plan(name), 0, TopicPartition(catalogue.WORK.name, 99))
        await self.until(lambda: run_id(AGENCY, name).__str__() in self.reports.summaries and not self.in_hand())
        for file in source.iterdir():
            file.unlink()
        self.reports.told.clear()
        self.commits.clear()
        digest, count = self.reports.summaries[str(run_id(AGENCY, name))].digest, 6
        item = replace(
            self.plan(name), kind="extract", transform_version=self.version, plan_digest=digest, count=count,
            chain_head=digest,
        )  # fmt: skip
        return replace(item, **changes)

    def deliver(self, item: Item, offset: int, tp: TopicPartition = TP) -> None:
        """Hand one item to the worker."""
        value, headers = self.travel(item)
        self.worker.deliver([Received(Position(tp, offset), None, value, tuple(headers))])

    def raw(self, value: bytes, offset: int, headers: Any = ()) -> None:
        """Hand any bytes to the worker."""
        self.worker.deliver([Received(Position(TP, offset), None, value, tuple(headers))])

    def fence(self, item: Item, term_min: int) -> None:
        """Let the worker hear a fence."""
        fence = WorkFenced(
            agency_id=AGENCY, run_id=item.run_id, kind=item.kind, number=item.number, term_min=term_min
        )  # fmt: skip
        self.fences.hear([Received(Position(TP, 0), None, body_bytes(fence))])

    def in_hand(self) -> int:
        """Return how many items the worker has."""
        return len(self.worker._in_hand)

    def committed(self, tp: TopicPartition = TP) -> int | None:
        """Return the last offset that was committed."""
        found = [offsets[tp] for offsets in self.commits if tp in offsets]
        return found[-1] if found else None

    async def until(self, holds: Callable[[], Any], seconds: float = 20) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(seconds):
            while not holds():  # noqa: ASYNC110 (what holds is the worker's own state, which has no event)
                await asyncio.sleep(0.005)

    async def settle(self) -> None:
        """Wait until nothing is left to do, commits included."""
        await self.until(lambda: not self.worker._tasks)

    async def waits(self, verb: str) -> None:
        """Wait until a held report is waiting."""
        await self.until(lambda: verb in self.reports.waiting)


@pytest.fixture
async def bench(
    tmp_path: Path, make_driver: Callable[..., Any], no_workers: Any, travel: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    """A worker of two places over an archive of six texts, assigned one Kafka partition."""
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    (tmp_path / "in").mkdir()
    for n in range(6):
        (tmp_path / "in" / f"{n}.txt").write_text("text")
    job = Job(f"file://{tmp_path}/in/", f"file://{tmp_path}/out/", "text", "research")
    commits: list[dict[TopicPartition, int]] = []
    refused: list[bool] = []

    async def commit(offsets: Mapping[TopicPartition, int]) -> bool:
        commits.append(dict(offsets))
        return not (refused and refused.pop())

    reports, fences = Reports(), HeardFences()
    fences.ready.set()
    drops = Drops(fences.fenced)
    tools = replace(make_driver(no_workers, job, [tmp_path], LIMITS).tools, reporter=reports)
    worker = Worker(tools, drops, places=2, ready=fences.ready, commit=commit, clock=SystemClock())
    worker.assigned(frozenset({TP, TopicPartition(catalogue.WORK.name, 99)}))
    yield Bench(worker, drops, fences, reports, job, tools.version, travel, commits, refused)
    await worker.stop(1)
