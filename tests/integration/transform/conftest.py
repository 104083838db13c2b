"""A checkpoint small enough to read, real files, real processes: what the transform's core is run against without Kafka.

`Driver` does what the real checkpoint does with reports, and is as strict: it recomputes the chain from the bytes that
it receives and dispatches the next items from what was reported, never from what it knows otherwise.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from flux_common.contracts import canonical, catalogue
from flux_common.contracts.envelope import Headers, body_bytes, headers_for
from flux_common.contracts.progress import SliceRecord
from flux_common.contracts.requests import Destination, OnReject, Partitioning, Source
from flux_common.contracts.work import Job as JobModel
from flux_common.contracts.work import PlanRange, WorkDispatched
from flux_common.kernel.clock import SystemClock
from flux_common.kernel.ids import run_id, sha256_hex
from flux_devkit import home
from flux_transform.adapters.plan_file import PlanFiles
from flux_transform.adapters.store import Access, OpenStores
from flux_transform.adapters.workers import ProcessWorkers
from flux_transform.domain.items import Head, IndexName, Item, Job, Outcome, PlanSummary
from flux_transform.domain.limits import DEFAULT_LIMITS, Limits
from flux_transform.domain.records import SliceWork
from flux_transform.handlers.tools import Tools
from flux_transform.handlers.work import work
from flux_transform.ports import Failure, SliceTask
from flux_transform.version import transform_version

AGENCY = "national-archives"


@dataclass
class Reports:
    """Takes reports as checkpoint would: each slice must continue its partition's chain."""

    started_items: list[str] = field(default_factory=list)
    plan: PlanSummary | None = None
    records: dict[int, list[bytes]] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    beats: int = 0
    on_sliced: Callable[[Item, int], None] = lambda _item, _seq: None

    async def started(self, item: Item) -> None:
        """Note it."""
        self.started_items.append(f"{item.kind}/{item.number}")

    async def alive(self, item: Item) -> None:
        """Count it."""
        self.beats += 1

    async def planned(self, item: Item, plan: PlanSummary) -> None:
        """Keep the plan's digest and counts."""
        self.plan = plan

    async def sliced(self, item: Item, seq: int, record: bytes) -> None:
        """Apply a slice in order along the chain; a repeat must be byte for byte the same."""
        applied = self.records.setdefault(item.number, [])
        if seq <= len(applied):
            assert applied[seq - 1] == record
            return
        model = SliceRecord.model_validate(canonical.decode_exact(record))
        assert self.plan is not None
        previous = sha256_hex(applied[-1]) if applied else self.plan.digest
        assert (model.seq, model.prev, model.partition) == (len(applied) + 1, previous, item.number)
        assert model.read == model.written + model.rejected
        applied.append(record)
        self.on_sliced(item, seq)

    async def finished(self, item: Item, outcome: Outcome) -> None:
        """Keep how an item ended."""
        self.outcomes[f"{item.kind}/{item.number}"] = outcome

    async def failed(self, item: Item, failure: Failure) -> None:
        """Keep why an item ended badly."""
        self.failures[f"{item.kind}/{item.number}"] = failure


class Heard:
    """Fences that a test sets."""

    def __init__(self) -> None:
        self.fenced: set[str] = set()

    def dropped(self, item: Item) -> bool:
        """Return whether the test has fenced the item."""
        return f"{item.kind}/{item.number}" in self.fenced


class Driver:
    """Carries one run from plan to manifest with real adapters."""

    def __init__(self, tools: Tools, reports: Reports, fences: Heard, job: Job, request_id: str = "request-1") -> None:
        self.tools, self.reports, self.fences = tools, reports, fences
        self.base = Item(AGENCY, str(run_id(AGENCY, request_id)), request_id, 1, "plan", 0, 1, job)

    async def plan(self) -> PlanSummary:
        """Do the plan step."""
        assert await work(self.tools, self.base) is None
        assert self.reports.plan is not None
        return self.reports.plan

    def extract_item(self, number: int, term: int = 1) -> Item:
        """Return the extract item of a partition, to go on from what is applied."""
        plan = self.reports.plan
        assert plan is not None
        applied = self.reports.records.get(number, [])
        cursor = SliceRecord.model_validate_json(applied[-1]).cursor if applied else 0
        return replace(
            self.base,
            kind="extract",
            number=number,
            term=term,
            transform_version=self.tools.version,
            plan_digest=plan.digest,
            first=sum(plan.partitions[:number]),
            count=plan.partitions[number],
            next_seq=len(applied) + 1,
            cursor=cursor,
            chain_head=sha256_hex(applied[-1]) if applied else plan.digest,
        )

    async def extract(self, number: int) -> Failure | None:
        """Do a partition, or what is left of it."""
        return await work(self.tools, self.extract_item(number))

    def gather_item(self, number: int, partitions: list[int]) -> Item:
        """Return the gather item of some partitions."""
        assert self.reports.plan is not None
        heads = tuple(
            Head(n, self.reports.outcomes[f"extract/{n}"].last_seq, str(self.reports.outcomes[f"extract/{n}"].head))
            for n in partitions
        )
        return replace(self.base, kind="gather", number=number, plan_digest=self.reports.plan.digest, heads=heads)

    async def gather(self, number: int, partitions: list[int]) -> Failure | None:
        """Do a gather step."""
        return await work(self.tools, self.gather_item(number, partitions))

    def finalize_item(self, gathers: int) -> Item:
        """Return the finalize item."""
        assert self.reports.plan is not None
        digests = [self.reports.outcomes[f"gather/{n}"].result_digest for n in range(gathers)]
        indexes = tuple(IndexName(n, str(digest)) for n, digest in enumerate(digests))
        return replace(self.base, kind="finalize", plan_digest=self.reports.plan.digest, indexes=indexes)

    async def run(self) -> Outcome:
        """Do all of it; return what finalize reported."""
        plan = await self.plan()
        for number in range(len(plan.partitions)):
            assert await self.extract(number) is None
        assert await self.gather(0, list(range(len(plan.partitions)))) is None
        assert await work(self.tools, self.finalize_item(1)) is None
        return self.reports.outcomes["finalize/0"]


class NoWorkers:
    """Workers that nobody may call: no decoder has anything to do."""

    async def work(self, task: SliceTask) -> SliceWork:
        """Refuse."""
        raise AssertionError("no decoder should run")


@pytest.fixture
def no_workers() -> NoWorkers:
    """Workers for items that need none: plans, and objects that are gone."""
    return NoWorkers()


@pytest.fixture(scope="session")
def samples() -> Path:
    """Return the folder of sample archives; skip where there is none."""
    folder = home.corpora() / "samples"
    if not folder.is_dir():
        pytest.skip("no sample archives: set FLUX_CORPORA")
    return folder.resolve()


OpenWorkers = Callable[..., AbstractAsyncContextManager[ProcessWorkers]]


@pytest.fixture
def open_workers() -> OpenWorkers:
    """Return a factory of worker pools."""

    @asynccontextmanager
    async def opened(count: int = 2, limits: Limits = DEFAULT_LIMITS) -> AsyncIterator[ProcessWorkers]:
        async with ProcessWorkers(count, limits) as workers:
            yield workers

    return opened


@pytest.fixture
def make_driver(tmp_path: Path) -> Callable[..., Driver]:
    """Return a factory of drivers for a job, over a worker pool."""

    def made(workers: Any, job: Job, roots: list[Path], limits: Limits = DEFAULT_LIMITS, **more: Any) -> Driver:
        reports, fences = Reports(), Heard()
        stores = OpenStores(Access(file_roots=(*roots, tmp_path)))
        version = transform_version(limits)
        tools = Tools(stores, PlanFiles(), workers, reports, fences, limits, version, **more)
        return Driver(tools, reports, fences, job)

    return made


def dispatched(item: Item) -> tuple[bytes, Headers]:
    """Return the value and the headers with which checkpoint would dispatch an item of kind plan or extract."""
    job = item.job
    event = WorkDispatched(
        agency_id=item.agency_id,
        run_id=item.run_id,
        request_id=item.request_id,
        run_attempt=item.run_attempt,
        kind=item.kind,
        number=item.number,
        term=item.term,
        attempt=0,
        job=JobModel(
            source=Source(uri=job.source_uri),
            destination=Destination(uri=job.destination_uri),
            content_type=job.content_type,  # type: ignore[arg-type]  # the model judges it
            use_case=job.use_case,  # type: ignore[arg-type]
            partitioning=Partitioning(objects_max=job.partition_objects_max),
            on_reject=OnReject(),
            options={},
            labels={},
        ),
        transform_version=item.transform_version,
        plan_digest=item.plan_digest,
        range=PlanRange(first=item.first, count=item.count) if item.count else None,
        next_seq=item.next_seq,
        cursor=item.cursor,
        chain_head=item.chain_head,
    )
    spec = catalogue.WORK_DISPATCHED
    key = f"{item.name}/{item.term}"
    return body_bytes(event), headers_for(
        spec, event_id=key, source="flux/checkpoint", at=SystemClock().now(), subject=item.name
    )


@pytest.fixture
def travel() -> Callable[[Item], tuple[bytes, Headers]]:
    """Return what makes an item a record of the work topic."""
    return dispatched
