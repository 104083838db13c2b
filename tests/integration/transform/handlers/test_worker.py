"""The worker's table, row by row, over real handlers and files: records are handed to it as a consumer would, one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import structlog

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
from flux_transform.domain.records import SliceWork
from flux_transform.handlers import worker as module
from flux_transform.handlers.worker import Drops, Worker
from flux_transform.ports import Failure, SliceTask

TP, OTHER = (TopicPartition(catalogue.WORK.name, n) for n in range(2))
LIMITS = replace(DEFAULT_LIMITS, slice_objects_max=2)
AGENCY = "national-archives"


class NoWorkers:
    """Workers that nobody may call: every object of these archives is gone, and rejected at the source."""

    async def work(self, task: SliceTask) -> SliceWork:
        """Refuse."""
        raise AssertionError("no decoder should run")


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
    tmp_path: Path, make_driver: Callable[..., Any], travel: Any, monkeypatch: pytest.MonkeyPatch
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
    tools = replace(make_driver(NoWorkers(), job, [tmp_path], LIMITS).tools, reporter=reports)
    worker = Worker(tools, drops, places=2, ready=fences.ready, commit=commit, clock=SystemClock())
    worker.assigned(frozenset({TP, TopicPartition(catalogue.WORK.name, 99)}))
    yield Bench(worker, drops, fences, reports, job, tools.version, travel, commits, refused)
    await worker.stop(1)


async def test_an_answered_item_is_committed_after_its_last_report(bench: Bench) -> None:
    """While the report is not acknowledged nothing is committed."""
    let_go = bench.reports.hold("planned")
    bench.deliver(bench.plan("r"), 7)
    await bench.waits("planned")
    before = bench.committed()
    let_go.set()
    await bench.settle()

    assert before is None
    assert bench.reports.told == [("started", "r"), ("planned", "r")]
    assert bench.committed() == 8


async def test_an_item_in_hand_that_comes_again_is_worked_once(bench: Bench) -> None:
    """After a rebalance, and as a twin in the log: every place is answered by the one end."""
    let_go = bench.reports.hold("planned")
    bench.deliver(bench.plan("r"), 0)
    await bench.waits("planned")
    bench.worker.assigned(frozenset({TP}))
    bench.deliver(bench.plan("r"), 0)
    bench.deliver(bench.plan("r"), 1)
    let_go.set()
    await bench.settle()

    assert bench.reports.count("planned") == 1
    assert bench.committed() == 2


async def test_an_item_in_hand_that_ends_before_it_comes_again_is_answered_then(bench: Bench) -> None:
    """Its old place means nothing after a rebalance; the new one is answered at once."""
    let_go = bench.reports.hold("planned")
    bench.deliver(bench.plan("r"), 0)
    await bench.waits("planned")
    bench.worker.assigned(frozenset({TP}))
    let_go.set()
    await bench.settle()
    before = bench.committed()
    bench.deliver(bench.plan("r"), 0)
    await bench.settle()

    assert before is None
    assert bench.committed() == 1
    assert bench.reports.count("started") == 1


async def test_a_finished_item_that_comes_again_is_answered_at_once(bench: Bench) -> None:
    """Its commit may have been lost; the work is not done again, but a later term is another item."""
    bench.deliver(bench.plan("r"), 0)
    await bench.settle()
    bench.worker.assigned(frozenset({TP}))
    bench.deliver(bench.plan("r"), 0)
    bench.deliver(bench.plan("r", term=2), 1)
    await bench.settle()

    assert bench.committed() == 2
    assert bench.reports.count("planned") == 2


async def test_an_item_given_to_others_is_dropped_before_its_next_slice(bench: Bench) -> None:
    """One slice was under way: it is acknowledged, the drop is said with its seq, nothing is committed or kept."""
    item = await bench.extract("r")
    let_go = bench.reports.hold("sliced")
    bench.deliver(item, 0)
    await bench.waits("sliced")
    bench.worker.assigned(frozenset({OTHER}))
    let_go.set()
    await bench.settle()

    assert [verb for verb, _ in bench.reports.told] == ["started", "sliced", "failed"]
    assert [(failure.code, failure.last_seq) for failure in bench.reports.failures] == [(Code.DROPPED, 1)]
    assert bench.committed() is None
    assert (bench.in_hand(), bench.drops.lost) == (0, set())


async def test_an_item_that_was_given_to_others_and_comes_back_is_worked(bench: Bench) -> None:
    """Dropped is not finished: if whoever had it died, nobody else would do it."""
    item = await bench.extract("r")
    let_go = bench.reports.hold("sliced")
    bench.deliver(item, 0)
    await bench.waits("sliced")
    bench.worker.assigned(frozenset())
    let_go.set()
    await bench.settle()
    bench.worker.assigned(frozenset({TP}))
    bench.deliver(item, 0)
    await bench.settle()

    assert bench.reports.count("finished") == 1
    assert bench.committed() == 1


async def test_an_item_that_comes_back_while_its_drop_is_being_said_is_worked(bench: Bench) -> None:
    """The place that came meanwhile is answered by real work, not by the drop."""
    item = await bench.extract("r")
    slice_end, drop = bench.reports.hold("sliced"), bench.reports.hold("failed")
    bench.deliver(item, 0)
    await bench.waits("sliced")
    bench.worker.assigned(frozenset())
    slice_end.set()
    await bench.waits("failed")
    bench.worker.assigned(frozenset({TP}))
    bench.deliver(item, 0)
    drop.set()
    await bench.settle()

    assert [verb for verb, _ in bench.reports.told if verb != "sliced"] == ["started", "failed", "started", "finished"]
    assert bench.committed() == 1


async def test_an_item_that_waits_and_is_given_to_others_is_let_go_without_a_word(bench: Bench) -> None:
    """It was never begun."""
    let_go = bench.reports.hold("planned")
    for n in range(4):
        bench.deliver(bench.plan(f"r{n}"), n)
    await bench.waits("planned")
    bench.worker.assigned(frozenset())
    let_go.set()
    await bench.settle()

    assert {name for _, name in bench.reports.told} == {"r0", "r1"}
    assert bench.in_hand() == 0


async def test_a_fenced_item_is_answered_without_being_begun(bench: Bench) -> None:
    """The drop is said, the offset committed; the term of the fence itself is worked."""
    item = bench.plan("r")
    bench.fence(item, 2)
    bench.deliver(item, 0)
    bench.deliver(replace(item, term=2), 1)
    await bench.settle()

    assert bench.reports.told[0] == ("failed", "r")
    assert [failure.code for failure in bench.reports.failures] == [Code.DROPPED]
    assert bench.reports.count("planned") == 1
    assert bench.committed() == 2


async def test_an_item_fenced_while_it_is_worked_is_dropped_before_its_next_slice(bench: Bench) -> None:
    """Then it is answered: nobody is to do it under this term, so it is not worked when it comes again."""
    item = await bench.extract("r")
    let_go = bench.reports.hold("sliced")
    bench.deliver(item, 0)
    await bench.waits("sliced")
    bench.fence(item, 2)
    let_go.set()
    await bench.settle()
    bench.worker.assigned(frozenset({TP}))
    bench.deliver(item, 0)
    await bench.settle()

    assert [verb for verb, _ in bench.reports.told] == ["started", "sliced", "failed"]
    assert bench.committed() == 1


async def test_only_a_contiguous_prefix_is_committed(bench: Bench) -> None:
    """A slow item holds the commit back; when it ends, all behind it is committed at once."""
    item = await bench.extract("slow")
    let_go = bench.reports.hold("sliced")
    bench.deliver(item, 0)
    await bench.waits("sliced")
    for n in (1, 2, 5):
        bench.deliver(bench.plan(f"r{n}", job=replace(bench.job, source_uri="file:///etc/")), n)
    await bench.until(lambda: len(bench.reports.failures) == 3)
    before = bench.committed()
    let_go.set()
    await bench.settle()

    assert before is None
    assert bench.committed() == 6


async def test_there_is_room_for_two_items_a_place_beyond_the_first_unfinished(bench: Bench) -> None:
    """Two are worked, two wait; finished ones behind an unfinished one take room, for they may come again."""
    let_go = bench.reports.hold("planned")
    rooms = [bench.worker.room()]
    for n in range(4):
        bench.deliver(bench.plan(f"r{n}"), n)
        rooms.append(bench.worker.room())
    await bench.waits("planned")
    await asyncio.sleep(0.05)
    begun = bench.reports.count("started")
    let_go.set()
    await bench.settle()

    assert rooms == [4, 3, 2, 1, 0]
    assert begun == 2
    assert bench.reports.count("planned") == 4
    assert bench.worker.room() == 4


async def test_there_is_no_room_before_the_fences_are_known_nor_while_stopping(bench: Bench) -> None:
    """An item could be fenced already; and who leaves takes nothing more."""
    bench.fences.ready.clear()
    unknown = bench.worker.room()
    bench.fences.ready.set()
    known = bench.worker.room()
    bench.drops.stopping = True

    assert (unknown, known, bench.worker.room()) == (0, 4, 0)


@pytest.mark.parametrize("value", [b"", b"\xff", b"{}", b"[]", b'{"agency_id":"nasa","kind":"polish","number":0}'])
async def test_a_record_that_names_no_item_does_not_stop_the_others(bench: Bench, value: bytes) -> None:
    """There is nobody to tell; it is committed with its neighbours."""
    bench.raw(value, 0)
    bench.deliver(bench.plan("r"), 1)
    await bench.settle()

    assert bench.reports.told == [("started", "r"), ("planned", "r")]
    assert bench.committed() == 2


async def test_an_item_of_a_newer_checkpoint_is_reported_unreadable(bench: Bench) -> None:
    """Its name and the end of its chain can be told, so checkpoint need not wait for `queued_max`."""
    item = await bench.extract("r", next_seq=3, cursor=4, chain_head="c" * 64)
    value, headers = bench.travel(item)
    bench.raw(value[:-1] + b',"colour":"blue"}', 0, headers)
    await bench.settle()

    assert bench.reports.told == [("failed", item.name)]
    assert bench.reports.failures == [Failure(Code.WORK_UNREADABLE, "infrastructure", True, 2, "c" * 64)]
    assert bench.committed() == 1


async def test_an_item_of_another_transform_version_is_reported_before_any_output(bench: Bench, tmp_path: Path) -> None:
    """And its offset is committed: checkpoint dispatches it anew."""
    bench.deliver(bench.plan("r", transform_version="other"), 0)
    await bench.settle()

    assert bench.reports.told == [("failed", "r")]
    assert [failure.code for failure in bench.reports.failures] == [Code.VERSION_MISMATCH]
    assert not (tmp_path / "out").exists()
    assert bench.committed() == 1


async def test_an_item_whose_source_may_not_be_read_is_the_policys_end(bench: Bench) -> None:
    """It fails for good, and the next one is worked."""
    bench.deliver(bench.plan("r", job=replace(bench.job, source_uri="file:///etc/")), 0)
    bench.deliver(bench.plan("next"), 1)
    await bench.settle()

    found = [(failure.code, failure.cause, failure.transient) for failure in bench.reports.failures]
    assert found == [(Code.SOURCE_NOT_ALLOWED, "policy", False)]
    assert bench.reports.count("planned") == 1
    assert bench.committed() == 2


async def test_an_item_waits_for_a_silent_broker_and_is_answered_once(bench: Bench) -> None:
    """Three reports are not acknowledged; nothing is committed until one is."""
    bench.reports.fails = 3
    bench.deliver(bench.plan("r"), 0)
    await bench.settle()

    assert bench.reports.count("planned") == 1
    assert bench.committed() == 1
    assert len(bench.commits) == 1


async def test_a_commit_that_is_refused_is_tried_again(bench: Bench) -> None:
    """Nothing else ends to bring it about."""
    bench.refused += [True, True]
    bench.deliver(bench.plan("r"), 0)
    await bench.settle()

    assert bench.commits == [{TP: 1}] * 3


async def test_a_refused_commit_is_forgotten_with_its_assignment(bench: Bench) -> None:
    """Whoever has the Kafka partition now commits for it."""
    bench.refused += [True] * 1000
    bench.deliver(bench.plan("r"), 0)
    await bench.until(lambda: len(bench.commits) > 2)
    bench.worker.assigned(frozenset({OTHER}))
    await bench.settle()

    assert {offset for offsets in bench.commits for offset in offsets.values()} == {1}


async def test_stopping_ends_slices_says_so_and_commits(bench: Bench) -> None:
    """What was begun reports DROPPED and is answered; what waited is left, uncommitted, to a successor."""
    item = await bench.extract("r")
    let_go = bench.reports.hold("sliced")
    bench.deliver(item, 0)
    bench.deliver(replace(item, term=2), 1)
    bench.deliver(bench.plan("waits"), 2)
    await bench.until(lambda: bench.reports.count("started") == 2)
    await bench.waits("sliced")
    stopping = asyncio.create_task(bench.worker.stop(10))
    await asyncio.sleep(0.02)
    let_go.set()
    await asyncio.wait_for(stopping, 5)

    assert [(failure.code, failure.last_seq) for failure in bench.reports.failures] == [(Code.DROPPED, 1)] * 2
    assert "waits" not in {name for _, name in bench.reports.told}
    assert bench.committed() == 2


async def test_stopping_ends_in_time_though_the_broker_is_silent(bench: Bench) -> None:
    """An item whose report is never acknowledged is given up, uncommitted."""
    bench.reports.hold("planned")
    bench.deliver(bench.plan("r"), 0)
    await bench.waits("planned")
    await asyncio.wait_for(bench.worker.stop(0.2), 5)

    assert bench.committed() is None
    assert bench.in_hand() == 0


async def test_stopping_ends_in_time_though_commits_fail(bench: Bench) -> None:
    """The item is delivered again, to a successor, and reported again."""
    bench.refused += [True] * 10_000
    bench.deliver(bench.plan("r"), 0)
    await bench.until(lambda: bench.commits)

    await asyncio.wait_for(bench.worker.stop(0.2), 5)


async def test_an_error_that_nobody_foresaw_ends_the_worker_and_commits_nothing(bench: Bench) -> None:
    """The loop sees `failure` and ends the process; the item is delivered again."""

    async def broken(*_: Any) -> None:
        raise ZeroDivisionError

    bench.reports.planned = broken  # type: ignore[assignment,method-assign]
    bench.deliver(bench.plan("r"), 0)
    await bench.settle()

    assert isinstance(bench.worker.failure, ZeroDivisionError)
    assert bench.committed() is None
    assert bench.in_hand() == 0


async def test_what_is_not_assigned_or_out_of_order_is_never_taken_silently(bench: Bench) -> None:
    """To skip it could lose an item; so it raises, the consumer ends, and a new process begins at the committed offset."""
    bench.deliver(bench.plan("r"), 5)

    with pytest.raises(ValueError, match="does not follow"):
        bench.deliver(bench.plan("older"), 4)
    with pytest.raises(KeyError):
        bench.deliver(bench.plan("foreign"), 0, OTHER)


async def test_a_new_assignment_may_begin_at_an_older_offset(bench: Bench) -> None:
    """What was begun before does not bound it: the committed offset does."""
    bench.deliver(bench.plan("r"), 5)
    await bench.settle()
    bench.worker.assigned(frozenset({TP}))
    bench.deliver(bench.plan("older"), 3)
    await bench.settle()

    assert bench.committed() == 4


async def test_memory_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of finished items the last ones are remembered; nothing else stays of an item."""
    monkeypatch.setattr(module, "FINISHED_REMEMBERED", 3)
    for n in range(10):
        bench.deliver(bench.plan(f"r{n}"), n)
        bench.worker.assigned(frozenset({TP if n % 2 else OTHER}))
        await bench.settle()
        bench.worker.assigned(frozenset({TP}))

    assert len(bench.worker._finished) <= 3
    assert (bench.in_hand(), len(bench.drops.lost), len(bench.worker._to_commit)) == (0, 0, 0)


async def test_an_item_has_one_line_in_the_log(bench: Bench) -> None:
    """It says what, whose, how it ended, after how many tries, and how long it took."""
    bench.reports.fails = 1
    with structlog.testing.capture_logs() as lines:
        bench.deliver(bench.plan("good"), 0)
        bench.deliver(bench.plan("bad", job=replace(bench.job, source_uri="file:///etc/")), 1)
        await bench.settle()
    told = {line["run_id"]: line for line in lines if line["event"] == "item answered"}

    assert [line["event"] for line in lines].count("item answered") == 2
    assert {run: line["code"] for run, line in told.items()} == {
        str(run_id(AGENCY, "good")): None,
        str(run_id(AGENCY, "bad")): Code.SOURCE_NOT_ALLOWED,
    }
    assert {(line["agency_id"], line["kind"], line["term"]) for line in told.values()} == {(AGENCY, "plan", 1)}
    assert all(isinstance(line["duration_ms"], int) for line in told.values())
    assert sum(line["tries"] for line in told.values()) == 3
