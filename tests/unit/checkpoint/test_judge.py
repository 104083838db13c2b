"""Judging reports: the order of the questions, and that nothing a chain contradicts is ever applied."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_checkpoint.domain.judge import Verdict, judge
from flux_checkpoint.domain.model import (
    Alive,
    Counts,
    Failed,
    Finished,
    Item,
    ItemKey,
    Planned,
    Report,
    Run,
    RunKey,
    Slice,
    Started,
)
from flux_checkpoint.domain.states import ITEM_MOVES, ItemState, RunState
from flux_common.kernel.codes import Code
from flux_common.kernel.positions import TopicPartition

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = RunKey("nasa", UUID(int=1))
PLAN = b"p" * 32


def a_run(**changes: Any) -> Run:
    run = Run(RUN, "r-1", RunState.RUNNING, 1, 32, 128, "skip", 1.0, NOW, NOW + timedelta(days=30), plan_digest=PLAN)
    return replace(run, objects=10, partitions=1, **changes)


def an_item(**changes: Any) -> Item:
    item = Item(ItemKey("nasa", RUN.run_id, "extract", 0), ItemState.RUNNING, term=3, attempt=0, object_count=10)
    return replace(item, **changes)


def a_slice(seq: int = 1, prev: bytes = PLAN, cursor: int = 4, read: int = 4, rejected: int = 1) -> Slice:
    rejects = {"OBJECT_CORRUPT": rejected} if rejected else {}
    return Slice(seq, bytes([seq]) * 32, prev, cursor, Counts(read, read - rejected, rejected, 100, 50), rejects)


def a_report(what: Any, term: int = 3, item: Item | None = None) -> Report:
    place = TopicPartition("flux-internal.progress.v1", 2).at(7)
    return Report((item or an_item()).key, term, "w", what, place, NOW, "flux.progress.x.v1", b"")


def backoff(attempt: int) -> timedelta:
    return timedelta(seconds=attempt)


def a_finalize_item() -> Item:
    return replace(an_item(), key=ItemKey("nasa", RUN.run_id, "finalize", 0))


def judged(what: Any, *, run: Run | None = None, item: Item | None = None, term: int = 3) -> Verdict:
    return judge(run or a_run(), item or an_item(), a_report(what, term, item), NOW, backoff)


@pytest.mark.parametrize("state", [RunState.COMPLETED, RunState.CANCELLED, RunState.FAILED])
def test_a_report_on_an_ended_run_is_fenced(state: RunState) -> None:
    """Question 1: an ended run hears nothing."""
    verdict = judged(a_slice(), run=a_run(state=state))

    assert verdict == Verdict("fenced")


def test_a_report_on_an_unknown_run_or_of_an_older_term_is_fenced() -> None:
    """Question 1: neither a stranger's run nor a predecessor's word counts."""
    unknown = judge(None, None, a_report(a_slice()), NOW, backoff)

    assert unknown.kind == "fenced"
    assert judged(a_slice(), term=2).kind == "fenced"


def test_a_term_that_was_never_dispatched_is_a_dead_letter() -> None:
    """Question 2: a newer term is a contradiction of the sender's, and changes nothing."""
    verdict = judged(a_slice(), term=4)

    assert verdict == Verdict("dead_letter", Code.TERM_UNKNOWN)


@pytest.mark.parametrize("state", [ItemState.PENDING, ItemState.FINISHED, ItemState.FAILED])
def test_an_item_that_is_not_in_hand_makes_duplicates(state: ItemState) -> None:
    """Question 3."""
    assert judged(a_slice(), item=an_item(state=state)).kind == "duplicate"


def test_a_slice_again_is_a_duplicate_and_another_digest_is_told() -> None:
    """Question 4: the applied one stands; a different twin is counted."""
    item = an_item(last_seq=1, cursor=4, chain_head=b"x" * 32, counts=Counts(4, 3, 1))

    assert judged(a_slice(seq=1), item=item) == Verdict("duplicate", differs=True)
    assert judged(replace(a_slice(seq=1), hash=b"x" * 32), item=item) == Verdict("duplicate", differs=False)


def test_an_earlier_slice_again_is_compared_with_the_one_that_was_applied() -> None:
    """Question 4: of a slice behind the head its own digest is known; without one nothing is claimed."""
    item = an_item(last_seq=2, cursor=8, chain_head=b"x" * 32, counts=Counts(8, 6, 2))
    again = a_report(a_slice(seq=1))

    assert judge(a_run(), item, again, NOW, backoff, bytes([1]) * 32) == Verdict("duplicate", differs=False)
    assert judge(a_run(), item, again, NOW, backoff, b"y" * 32) == Verdict("duplicate", differs=True)
    assert judge(a_run(), item, again, NOW, backoff) == Verdict("duplicate", differs=False)


def test_the_first_slice_is_owed_from_the_first_word_on() -> None:
    """An item may lie in the queue for hours: its worker's time begins when the worker speaks, and goes on from there."""
    earlier = NOW - timedelta(hours=5)
    first = judged(Started(), item=an_item(state=ItemState.DISPATCHED, last_slice=earlier))
    then = judged(Alive(), item=an_item(state=ItemState.RUNNING, last_slice=earlier))
    assert first.item is not None
    assert then.item is not None

    assert (first.item.last_slice, then.item.last_slice) == (NOW, earlier)


def test_the_next_slice_moves_the_checkpoint() -> None:
    """Question 5: head, cursor and counts follow the record."""
    verdict = judged(a_slice(), item=an_item(state=ItemState.DISPATCHED))

    assert verdict.kind == "effect"
    assert verdict.item is not None
    assert (verdict.item.last_seq, verdict.item.cursor, verdict.item.chain_head) == (1, 4, bytes([1]) * 32)
    assert verdict.item.state is ItemState.RUNNING
    assert verdict.item.rejects == {"OBJECT_CORRUPT": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        a_slice(seq=2),
        a_slice(prev=b"q" * 32),
        a_slice(cursor=5),
        a_slice(cursor=11, read=11),
        replace(a_slice(), counts=Counts(4, 4, 1)),
        replace(a_slice(), rejects={"OBJECT_CORRUPT": 2}),
        replace(a_slice(cursor=10, read=10), counts=Counts(10, 10, 0, 2**53, 0), rejects={}),
        replace(a_slice(cursor=10, read=10), counts=Counts(10, 10, 0, 0, 2**53), rejects={}),
    ],
    ids=["gap", "other chain", "cursor jumps", "beyond the range", "counts", "rejects", "bytes in", "bytes out"],
)
def test_what_contradicts_the_chain_is_put_aside_and_the_item_starts_again_from_its_head(wrong: Slice) -> None:
    """Question 8: dead letter, term + 1, attempt + 1, fence; the stored head stays."""
    verdict = judged(wrong)

    assert (verdict.kind, verdict.code, verdict.fence) == ("dead_letter", Code.CHAIN_BROKEN, True)
    assert verdict.item is not None
    assert (verdict.item.state, verdict.item.term, verdict.item.attempt) == (ItemState.PENDING, 4, 1)
    assert verdict.item.chain_head is None


def test_bytes_that_no_event_could_say_are_put_aside() -> None:
    """The sum over a chain stays what JSON and the database can hold, however large single slices are."""
    item = an_item(last_seq=1, cursor=4, chain_head=b"x" * 32, counts=Counts(4, 3, 1, bytes_in=2**53 - 50))
    more = a_slice(seq=2, prev=b"x" * 32, cursor=8)

    assert judged(more, item=item).code == Code.CHAIN_BROKEN
    assert judged(replace(more, counts=Counts(4, 3, 1, 49, 50)), item=item).kind == "effect"


def test_an_item_has_at_most_64_reject_codes() -> None:
    """A worker that invents codes cannot make a row grow without end."""
    item = an_item(rejects={f"CODE_{n}": 1 for n in range(64)}, object_count=100)

    assert judged(a_slice(), item=item).code == Code.CHAIN_BROKEN
    assert judged(replace(a_slice(), rejects={"CODE_7": 1}), item=item).kind == "effect"


def test_the_fifth_attempt_is_the_last() -> None:
    """An item that failed as often as it may is FAILED, cause transform for a broken chain."""
    verdict = judged(a_slice(seq=2), item=an_item(attempt=4))

    assert verdict.item is not None
    assert (verdict.item.state, verdict.item.failure_cause) == (ItemState.FAILED, "transform")
    assert not verdict.fence, "the term was not raised: a fence for it has gone out before"


def test_finished_behind_the_chain_is_a_duplicate_and_at_its_head_is_applied() -> None:
    """Question 7: another worker may be ahead."""
    item = an_item(last_seq=2, cursor=10, chain_head=b"h" * 32, counts=Counts(10, 10, 0))

    assert judged(Finished(1, b"g" * 32), item=item).kind == "duplicate"
    done = judged(Finished(2, b"h" * 32), item=item)
    assert done.kind == "effect"
    assert done.item is not None
    assert done.item.state is ItemState.FINISHED


def test_finished_before_the_range_is_worked_is_a_contradiction() -> None:
    """I9: a partition is not finished while objects of its range are unread."""
    item = an_item(last_seq=2, cursor=9, chain_head=b"h" * 32, counts=Counts(9, 9, 0))

    assert judged(Finished(2, b"h" * 32), item=item).code == Code.CHAIN_BROKEN


def test_a_transient_failure_spends_an_attempt_and_waits() -> None:
    """Back to PENDING with a pause that the database's clock measures."""
    verdict = judged(Failed(0, None, "SOURCE_UNAVAILABLE", "infrastructure", transient=True))

    assert verdict.item is not None
    assert (verdict.item.state, verdict.item.attempt) == (ItemState.PENDING, 1)
    assert verdict.item.not_before == NOW + timedelta(seconds=1)


@pytest.mark.parametrize("code", [Code.VERSION_MISMATCH, Code.WORK_UNREADABLE, Code.DROPPED])
def test_some_failures_cost_no_attempt(code: Code) -> None:
    """They say something about the worker, not about the item."""
    verdict = judged(Failed(0, None, code, "infrastructure", transient=True), item=an_item(attempt=4))

    assert verdict.item is not None
    assert (verdict.item.state, verdict.item.attempt, verdict.item.term) == (ItemState.PENDING, 4, 4)


def test_a_lasting_failure_fails_the_item() -> None:
    """The dispatcher then fails the run with this cause and code."""
    verdict = judged(Failed(0, None, "SOURCE_MISSING", "input", transient=False))

    assert verdict.item is not None
    assert (verdict.item.state, verdict.item.failure_code) == (ItemState.FAILED, "SOURCE_MISSING")


def test_a_plan_is_applied_to_the_plan_step_only() -> None:
    """Another kind of item cannot bring a plan."""
    plan = Planned(b"d" * 32, 10, 100, (10,), "v1")
    step = an_item(key=ItemKey("nasa", RUN.run_id, "plan", 0), object_count=0)

    assert judged(plan, item=step).planned == plan
    assert judged(plan).code == Code.CHAIN_BROKEN


WHAT = st.one_of(
    st.builds(
        a_slice,
        seq=st.integers(1, 4),
        prev=st.sampled_from([PLAN, b"\x01" * 32, b"\x02" * 32]),
        cursor=st.integers(1, 12),
        read=st.integers(1, 12),
        rejected=st.integers(0, 1),
    ),
    st.builds(Finished, st.integers(0, 3), st.sampled_from([None, b"\x01" * 32, b"\x02" * 32])),
    st.builds(Failed, st.integers(0, 3), st.none(), st.sampled_from(["X", "DROPPED"]), st.just("input"), st.booleans()),
    st.just(Started()),
    st.just(Alive()),
)


@given(st.lists(st.tuples(WHAT, st.integers(2, 5)), max_size=30))
def test_whatever_arrives_the_checkpoint_stays_whole(reports: list[tuple[Any, int]]) -> None:
    """I3, I9: counts follow the cursor, seq grows by one along the chain, states move only as the table allows."""
    item, run = an_item(), a_run()
    for what, term in reports:
        verdict = judge(run, item, a_report(what, term), NOW, backoff)
        after = verdict.item or item

        assert after.counts.read == after.cursor == after.counts.written + after.counts.rejected
        assert after.cursor <= after.object_count
        assert after.last_seq - item.last_seq in {0, 1}
        assert after.term >= item.term
        assert after.state == item.state or after.state in ITEM_MOVES[item.state] | ITEM_MOVES[ItemState.RUNNING]
        item = after


FOLDER = f"s3://datasets/nasa/{RUN.run_id}"
NAMED = f"{FOLDER}/manifest-{'6d' * 32}.json"


@pytest.mark.parametrize("destination", ["s3://datasets/nasa", "s3://datasets/nasa/"])
def test_a_manifest_in_the_runs_folder_under_its_digest_is_applied(destination: str) -> None:
    """Question 7: the completion will name what the admitted destination and the digest say."""
    finished = Finished(0, None, b"m" * 32, NAMED, 3, 8)
    verdict = judged(finished, run=a_run(destination_uri=destination), item=a_finalize_item())

    assert verdict.kind == "effect"
    assert verdict.finished == finished


@pytest.mark.parametrize(
    "uri",
    [
        None,
        f"s3://elsewhere/{RUN.run_id}/manifest-{'6d' * 32}.json",
        f"s3://datasets/nasa/{UUID(int=2)}/manifest-{'6d' * 32}.json",
        f"{FOLDER}/manifest-{'6e' * 32}.json",
        f"{FOLDER}/../{RUN.run_id}/manifest-{'6d' * 32}.json",
        f"{NAMED}?version=2",
    ],
)
def test_no_worker_says_where_a_manifest_is(uri: str | None) -> None:
    """Question 8: whatever a worker names but the file that the admission implies, no completion will ever name."""
    finished = Finished(0, None, b"m" * 32, uri, 3, 8)
    verdict = judged(finished, run=a_run(destination_uri="s3://datasets/nasa/"), item=a_finalize_item())

    assert (verdict.kind, verdict.code, verdict.finished) == ("dead_letter", Code.CHAIN_BROKEN, None)
    assert verdict.item is not None
    assert (verdict.item.state, verdict.item.term, verdict.item.attempt) == (ItemState.PENDING, 4, 1)
