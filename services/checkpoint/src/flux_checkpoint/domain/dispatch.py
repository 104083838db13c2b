"""What the dispatcher does with a run next: a pure function of the run, its items' tallies and `now`.

What must hold: the dispatcher alone moves runs onward, dispatches and ends them, and only from what the rows say, so a lost
message loses no decision; asking twice decides twice the same. Each pass makes one move; a pass that changed something is
followed by another.

| run | when | the pass |
|---|---|---|
| any open | its deadline is over | FAILED, policy |
| any open but CANCELLING | its records contradict each other; an item FAILED; too many rejects | FAILED |
| ADMITTED | | PLANNING, the plan item is made |
| PLANNING | plan item FINISHED | RUNNING, or PAUSED where a pause is remembered |
| RUNNING | partitions are missing | a page of them is made |
| RUNNING | all FINISHED | FINALIZING, the gather items are made |
| FINALIZING | all gathered | the finalize item is made |
| FINALIZING | finalized and everything adds up | COMPLETED |
| CANCELLING | nothing started is unanswered, or the grace is over | CANCELLED |
| PLANNING, RUNNING, FINALIZING | items due, room in the windows | they are dispatched |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from flux_checkpoint.domain.model import COUNT_MAX, GATHER_HEADS_MAX, Cause, Counts, Item, Run
from flux_checkpoint.domain.states import RunState
from flux_common.kernel.codes import Code
from flux_common.kernel.ids import ItemKind

PARTITIONS_PAGE = 1000
DUE_PAGE = 128
LOOK_AGAIN = timedelta(seconds=15)
WINDOW_AGAIN = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an item may be silent, work on one slice, or lie in the queue."""

    stall_after: timedelta = timedelta(minutes=5)
    slice_wall_max: timedelta = timedelta(minutes=30)
    queued_max: timedelta = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Tally:
    """How many items of one kind stand in each state."""

    pending: int = 0
    dispatched: int = 0
    running: int = 0
    finished: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        """Return the number of items of the kind."""
        return self.pending + self.dispatched + self.running + self.finished + self.failed

    @property
    def all_finished(self) -> bool:
        """Tell whether there are items and all are finished."""
        return self.total > 0 and self.finished == self.total


@dataclass(frozen=True, slots=True)
class Facts:
    """What one pass knows. `due` are PENDING items whose time has come, `stalled` those whose workers fell silent.

    `due` is a page of them: `DUE_PAGE` at most. `totals` stand still at `COUNT_MAX`.
    """

    run: Run
    tallies: dict[ItemKind, Tally]
    totals: Counts
    due: Sequence[Item]
    stalled: Sequence[Item]
    corrupt: Sequence[Item]
    failed: Item | None
    agency_in_hand: int
    next_due: datetime | None
    manifest_digest: bytes | None

    def tally(self, kind: ItemKind) -> Tally:
        """Return the tally of a kind, zeros where it has no items."""
        return self.tallies.get(kind, Tally())


@dataclass(frozen=True, slots=True)
class Fail:
    """End this attempt of the run."""

    code: str
    cause: Cause


@dataclass(frozen=True, slots=True)
class Complete:
    """The run is whole."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """The run ends by command."""


@dataclass(frozen=True, slots=True)
class Move:
    """Go to another state, making items of a kind: (number, first object, object count) each."""

    state: RunState | None
    kind: ItemKind | None = None
    items: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Work:
    """Dispatch these items, take those back, and look again at `wake_at`; at once where there may be `more`."""

    dispatch: tuple[Item, ...]
    recall: tuple[Item, ...]
    wake_at: datetime
    more: bool = False


Pass = Fail | Complete | Cancel | Move | Work


def decide(facts: Facts, now: datetime) -> Pass:
    """Return the next move of the run."""
    run = facts.run
    if run.state is RunState.CANCELLING:
        return _cancelling(facts, now)
    ending = _failure(facts, now)
    if ending is not None:
        return ending
    match run.state:
        case RunState.ADMITTED:
            return Move(RunState.PLANNING, "plan", ((0, 0, 0),))
        case RunState.PLANNING:
            return _planning(facts, now)
        case RunState.RUNNING:
            return _running(facts, now)
        case RunState.FINALIZING:
            return _finalizing(facts, now)
        case _:
            return _work(facts, now, 0)


def _failure(facts: Facts, now: datetime) -> Fail | None:
    run = facts.run
    if now >= run.deadline:
        return Fail(Code.RUN_TTL_EXCEEDED, "policy")
    if run.broken_code is not None:
        return Fail(run.broken_code, "infrastructure" if run.broken_code == Code.CHAIN_CORRUPT else "transform")
    if facts.corrupt:
        return Fail(Code.CHAIN_CORRUPT, "infrastructure")
    if facts.failed is not None:
        return Fail(facts.failed.failure_code or Code.WORKER_FAILED, facts.failed.failure_cause or "transform")
    if max(facts.totals.bytes_in, facts.totals.bytes_out) >= COUNT_MAX:
        return Fail(Code.COUNTS_MISMATCH, "transform")  # no event could say how many
    return _too_many_rejects(run, facts.totals)


def _too_many_rejects(run: Run, totals: Counts) -> Fail | None:
    if run.on_reject == "fail" and totals.rejected > 0:
        return Fail(Code.REJECTS_EXCEEDED, "input")
    if totals.rejected > run.ratio_max * run.objects:
        return Fail(Code.REJECTS_EXCEEDED, "input")
    return None


def _planning(facts: Facts, now: datetime) -> Pass:
    if facts.run.plan_digest is not None:
        return Move(RunState.PAUSED if facts.run.pause_wanted else RunState.RUNNING)
    return _work(facts, now, 1)


def _running(facts: Facts, now: datetime) -> Pass:
    run = facts.run
    if run.partitions_made < run.partitions:
        return Move(None, "extract", partition_page(run))
    if facts.tally("extract").all_finished:
        if not partitions_add_up(facts):
            return Fail(Code.COUNTS_MISMATCH, "transform")
        numbers = range(-(-run.partitions // GATHER_HEADS_MAX))
        return Move(RunState.FINALIZING, "gather", tuple((number, 0, 0) for number in numbers))
    in_hand = facts.tally("extract").dispatched + facts.tally("extract").running
    room = min(run.run_window - in_hand, run.agency_window - facts.agency_in_hand)
    return _work(facts, now, max(0, room))


def partition_page(run: Run) -> tuple[tuple[int, int, int], ...]:
    """Return the next partitions to make: number, first object and object count of each."""
    page: list[tuple[int, int, int]] = []
    first = run.objects_made
    for number in range(run.partitions_made, min(run.partitions, run.partitions_made + PARTITIONS_PAGE)):
        page.append((number, first, run.partition_objects[number]))
        first += run.partition_objects[number]
    return tuple(page)


def _finalizing(facts: Facts, now: datetime) -> Pass:
    if facts.tally("finalize").all_finished:
        return Complete() if adds_up(facts) else Fail(Code.COUNTS_MISMATCH, "transform")
    if facts.tally("gather").total == 0:  # a retry that goes on from here
        return Move(None, "gather", tuple((n, 0, 0) for n in range(-(-facts.run.partitions // GATHER_HEADS_MAX))))
    if facts.tally("gather").all_finished and facts.tally("finalize").total == 0:
        return Move(None, "finalize", ((0, 0, 0),))
    return _work(facts, now, 16)


def adds_up(facts: Facts) -> bool:
    """Tell whether a run may complete: the partitions make the plan still, and there is a manifest of them."""
    return partitions_add_up(facts) and facts.manifest_digest is not None


def partitions_add_up(facts: Facts) -> bool:
    """Tell whether the partitions make the plan (I9): all of them, all objects, each written or rejected."""
    run, totals = facts.run, facts.totals
    return (
        run.plan_digest is not None
        and run.partitions > 0
        and facts.tally("extract").finished == run.partitions
        and totals.read == run.objects
        and totals.read == totals.written + totals.rejected
    )


def _cancelling(facts: Facts, now: datetime) -> Pass:
    started = sum(tally.running for tally in facts.tallies.values())
    deadline = facts.run.cancel_deadline
    if started == 0 or deadline is None or now >= deadline:
        return Cancel()
    return Work((), (), min(deadline, now + LOOK_AGAIN))


def _work(facts: Facts, now: datetime, room: int) -> Work:
    due = tuple(facts.due[:room])
    # Room in the agency's window may come from any of its runs: whoever waits for it looks often.
    again = now + (WINDOW_AGAIN if len(due) < len(facts.due) else LOOK_AGAIN)
    soonest = [at for at in (facts.next_due, facts.run.deadline, again) if at is not None]
    wake_at = max(min(soonest), now + timedelta(milliseconds=50))
    return Work(due, tuple(facts.stalled), wake_at, more=DUE_PAGE <= len(due) < room)
