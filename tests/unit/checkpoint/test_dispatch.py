"""The dispatcher's passes: each moves a run one step, from what the rows say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from flux_checkpoint.domain.dispatch import (
    DUE_PAGE,
    Cancel,
    Complete,
    Facts,
    Fail,
    Move,
    Tally,
    Work,
    decide,
    partition_page,
)
from flux_checkpoint.domain.model import COUNT_MAX, Counts, Item, ItemKey, Run, RunKey
from flux_checkpoint.domain.states import RUN_MOVES, TERMINAL, ItemState, RunState
from flux_common.kernel.codes import Code

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = RunKey("nasa", UUID(int=1))


def a_run(state: RunState, **changes: Any) -> Run:
    run = Run(RUN, "r-1", state, 1, 4, 6, "skip", 0.5, NOW, NOW + timedelta(days=30))
    return replace(run, **changes)


def planned(state: RunState, **changes: Any) -> Run:
    return a_run(
        state,
        plan_digest=b"p" * 32,
        objects=10,
        partitions=2,
        partition_objects=(6, 4),
        **({"partitions_made": 2, "objects_made": 10} | changes),
    )


def items(count: int, kind: Any = "extract") -> list[Item]:
    return [Item(ItemKey("nasa", RUN.run_id, kind, n), ItemState.PENDING, 0, 0) for n in range(count)]


def facts(run: Run, **changes: Any) -> Facts:
    known = Facts(run, {}, Counts(), [], [], [], None, 0, None, None)
    return replace(known, **changes)


def test_an_admitted_run_gets_its_plan_step() -> None:
    """ADMITTED → PLANNING with one plan item."""
    assert decide(facts(a_run(RunState.ADMITTED)), NOW) == Move(RunState.PLANNING, "plan", ((0, 0, 0),))


def test_a_planned_run_runs_or_pauses_where_a_pause_was_remembered() -> None:
    """PLANNING → RUNNING, or PAUSED."""
    assert decide(facts(planned(RunState.PLANNING)), NOW) == Move(RunState.RUNNING)
    assert decide(facts(planned(RunState.PLANNING, pause_wanted=True)), NOW) == Move(RunState.PAUSED)


def test_partitions_are_made_in_pages_with_their_ranges() -> None:
    """The cut of the plan becomes gap-free ranges."""
    run = planned(RunState.RUNNING, partitions_made=0, objects_made=0)

    assert partition_page(run) == ((0, 0, 6), (1, 6, 4))
    assert decide(facts(run), NOW) == Move(None, "extract", ((0, 0, 6), (1, 6, 4)))


@pytest.mark.parametrize(("in_hand", "agency", "room"), [(0, 0, 4), (3, 3, 1), (0, 5, 1), (4, 4, 0), (0, 7, 0)])
def test_windows_bound_what_goes_out(in_hand: int, agency: int, room: int) -> None:
    """The run's window is 4, the agency's 6: the smaller room counts."""
    tally = {"extract": Tally(pending=9, running=in_hand)}
    decision = decide(facts(planned(RunState.RUNNING), tallies=tally, due=items(9), agency_in_hand=agency), NOW)

    assert isinstance(decision, Work)
    assert len(decision.dispatch) == room


def test_a_full_page_with_room_left_is_followed_at_once() -> None:
    """`due` is a page: what else is due must not wait for the next look."""
    wide = replace(planned(RunState.RUNNING), run_window=500, agency_window=500)
    page, rest = facts(wide, due=items(DUE_PAGE)), facts(wide, due=items(DUE_PAGE - 1))
    narrow = facts(replace(wide, run_window=DUE_PAGE), due=items(DUE_PAGE))

    assert [work.more for work in map(worked, (page, rest, narrow))] == [True, False, False]


def worked(known: Facts) -> Work:
    decision = decide(known, NOW)
    assert isinstance(decision, Work)
    return decision


def test_a_paused_run_sends_nothing_out() -> None:
    """What runs finishes; nothing new starts."""
    decision = decide(facts(planned(RunState.PAUSED), due=items(2)), NOW)

    assert isinstance(decision, Work)
    assert decision.dispatch == ()


def test_finished_partitions_are_gathered_then_finalized_then_completed() -> None:
    """RUNNING → FINALIZING → COMPLETED, each from the tallies."""
    done = {"extract": Tally(finished=2)}
    totals = Counts(10, 9, 1)
    gathered = done | {"gather": Tally(finished=1)}
    finalized = gathered | {"finalize": Tally(finished=1)}
    run = planned(RunState.FINALIZING)

    assert decide(facts(planned(RunState.RUNNING), tallies=done, totals=totals), NOW) == Move(
        RunState.FINALIZING, "gather", ((0, 0, 0),)
    )
    assert decide(facts(run, tallies=gathered, totals=totals), NOW) == Move(None, "finalize", ((0, 0, 0),))
    assert decide(facts(run, tallies=finalized, totals=totals, manifest_digest=b"m" * 32), NOW) == Complete()


@pytest.mark.parametrize("totals", [Counts(9, 9, 0), Counts(10, 9, 0), Counts(11, 11, 0)])
def test_nothing_is_gathered_that_does_not_add_up(totals: Counts) -> None:
    """When the last partition finishes, the counts are held against the plan at once, not after a manifest is made."""
    known = facts(planned(RunState.RUNNING), tallies={"extract": Tally(finished=2)}, totals=totals)

    assert decide(known, NOW) == Fail(Code.COUNTS_MISMATCH, "transform")


@pytest.mark.parametrize(
    ("totals", "tally", "manifest"),
    [
        (Counts(9, 9, 0), Tally(finished=2), b"m" * 32),
        (Counts(10, 10, 0), Tally(finished=1), b"m" * 32),
        (Counts(10, 10, 0), Tally(finished=2), None),
    ],
    ids=["objects missing", "partition missing", "no manifest"],
)
def test_nothing_completes_that_does_not_add_up(totals: Counts, tally: Tally, manifest: bytes | None) -> None:
    """I9."""
    tallies = {"extract": tally, "gather": Tally(finished=1), "finalize": Tally(finished=1)}
    known = facts(planned(RunState.FINALIZING), tallies=tallies, totals=totals, manifest_digest=manifest)

    assert decide(known, NOW) == Fail(Code.COUNTS_MISMATCH, "transform")


def test_too_many_rejects_fail_the_run_early() -> None:
    """rejected > ratio_max × objects planned; with `fail`, the first one."""
    run = planned(RunState.RUNNING)

    assert decide(facts(run, totals=Counts(6, 0, 6)), NOW) == Fail(Code.REJECTS_EXCEEDED, "input")
    assert isinstance(decide(facts(run, totals=Counts(5, 0, 5)), NOW), Work)
    assert isinstance(decide(facts(replace(run, on_reject="fail"), totals=Counts(5, 4, 1)), NOW), Fail)


def test_a_run_past_its_deadline_or_with_a_corrupt_chain_fails() -> None:
    """Policy and infrastructure have their own causes."""
    run = planned(RunState.RUNNING)

    assert decide(facts(run), run.deadline) == Fail(Code.RUN_TTL_EXCEEDED, "policy")
    assert decide(facts(run, corrupt=items(1)), NOW) == Fail(Code.CHAIN_CORRUPT, "infrastructure")
    assert decide(facts(replace(run, broken_code="RECORD_INVALID")), NOW) == Fail("RECORD_INVALID", "transform")
    broken = replace(run, broken_code=Code.CHAIN_CORRUPT)
    assert decide(facts(broken), NOW) == Fail(Code.CHAIN_CORRUPT, "infrastructure")


@pytest.mark.parametrize("totals", [Counts(bytes_in=COUNT_MAX), Counts(bytes_out=COUNT_MAX)])
def test_a_run_whose_bytes_no_event_could_say_fails(totals: Counts) -> None:
    """The sums stand still at the largest exact integer of JSON; a completion with them would be wrong."""
    assert decide(facts(planned(RunState.RUNNING), totals=totals), NOW) == Fail(Code.COUNTS_MISMATCH, "transform")


def test_a_cancelled_run_waits_for_started_items_but_not_for_ever() -> None:
    """CANCELLED once nothing runs, or the grace is over."""
    run = planned(RunState.CANCELLING, cancel_deadline=NOW + timedelta(seconds=60))
    running = {"extract": Tally(running=1)}

    assert isinstance(decide(facts(run, tallies=running), NOW), Work)
    assert decide(facts(run, tallies=running), NOW + timedelta(seconds=60)) == Cancel()
    assert decide(facts(run), NOW) == Cancel()


def test_final_states_lead_nowhere() -> None:
    """I6: COMPLETED and CANCELLED absorb; FAILED is left by retry alone."""
    assert RUN_MOVES[RunState.COMPLETED] == RUN_MOVES[RunState.CANCELLED] == frozenset()
    assert not RUN_MOVES[RunState.FAILED] & TERMINAL
