"""Judging a worker's report: a pure function of the run, the item and the report (docs/semantics.md, Dispatch).

What must hold: only the current term is heard; slices apply in order along the chain, each once; nothing that a run's own
records contradict is ever applied. The order of the questions below is the document's, and each answers for all after it.

| # | the report | verdict |
|---|---|---|
| 1 | run unknown or terminal, or an older term | fenced |
| 2 | a newer term than was ever dispatched | dead letter |
| 3 | the item is neither DISPATCHED nor RUNNING | duplicate |
| 4 | a slice at or before last_seq | duplicate |
| 5 | the slice after last_seq, on the chain's head | applied |
| 6 | started, alive | last heard |
| 7 | finished, failed: behind the chain | duplicate; at its head: applied |
| 8 | anything else | dead letter; back to PENDING from the stored head, term + 1, attempt + 1 |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from flux_checkpoint.domain.model import (
    ATTEMPTS_MAX,
    COUNT_MAX,
    REJECT_CODES_MAX,
    Alive,
    Cause,
    Failed,
    Finished,
    Item,
    Planned,
    Report,
    Run,
    Slice,
    Started,
)
from flux_checkpoint.domain.states import IN_HAND, TERMINAL, ItemState
from flux_common.kernel.codes import Code
from flux_common.kernel.ids import manifest_uri

# Failures that say nothing about the item: another worker may do it, and no attempt is spent.
FREE_OF_ATTEMPT = frozenset({Code.VERSION_MISMATCH, Code.WORK_UNREADABLE, Code.DROPPED})

Backoff = Callable[[int], timedelta]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a report: its ledger class, and the item as it is afterwards (None: unchanged)."""

    kind: Literal["effect", "duplicate", "fenced", "dead_letter"]
    code: str | None = None
    item: Item | None = None
    fence: bool = False
    planned: Planned | None = None
    finished: Finished | None = None
    differs: bool = False


def judge(
    run: Run | None, item: Item | None, report: Report, now: datetime, backoff: Backoff, applied: bytes | None = None
) -> Verdict:
    """Return the verdict on `report`, given the run and the item as they stand.

    `applied` is the digest of the slice that was applied under the report's seq, where there is one.
    """
    if run is None or item is None or run.state in TERMINAL or report.term < item.term:
        return Verdict("fenced")
    if report.term > item.term:
        return Verdict("dead_letter", Code.TERM_UNKNOWN)
    if item.state not in IN_HAND:
        return Verdict("duplicate")
    heard = replace(
        item,
        state=ItemState.RUNNING,
        last_heard=report.heard_at,
        # Time in the queue is nobody's: the first slice is owed from the first word on.
        last_slice=report.heard_at if item.state is ItemState.DISPATCHED else item.last_slice,
        worker=report.worker or item.worker,
        kafka_partition=report.position.tp.kafka_partition,
    )
    return _of_current_term(run, heard, report, now, backoff, applied)


def _of_current_term(
    run: Run, item: Item, report: Report, now: datetime, backoff: Backoff, applied: bytes | None
) -> Verdict:
    match report.what:
        case Slice() as done if item.key.kind == "extract" and done.seq <= item.last_seq:
            standing = item.chain_head if done.seq == item.last_seq else applied
            return Verdict("duplicate", differs=standing is not None and done.hash != standing)
        case Slice() as done if item.key.kind == "extract":
            return _slice(run, item, done, report, now, backoff)
        case Started() | Alive():
            return Verdict("effect", item=item)
        case Planned() as plan if item.key.kind == "plan":
            return Verdict("effect", item=_done(item, plan.digest), planned=plan)
        case Finished() as finished:
            return _finished(run, item, finished, now, backoff)
        case Failed() as failed:
            return _failed(run, item, failed, now, backoff)
        case _:
            return _contradiction(item, now, backoff)


def _slice(run: Run, item: Item, done: Slice, report: Report, now: datetime, backoff: Backoff) -> Verdict:
    if done.seq != item.last_seq + 1 or done.prev != _head(run, item) or not _adds_up(item, done):
        return _contradiction(item, now, backoff)
    moved = replace(
        item,
        last_seq=done.seq,
        cursor=done.cursor,
        chain_head=done.hash,
        counts=item.counts + done.counts,
        rejects=_merged(item.rejects, done.rejects),
        last_slice=report.heard_at,
    )
    return Verdict("effect", item=moved)


def _head(run: Run, item: Item) -> bytes | None:
    return item.chain_head if item.last_seq > 0 else run.plan_digest


def _adds_up(item: Item, done: Slice) -> bool:
    counts = done.counts
    return (
        counts.read == counts.written + counts.rejected
        and counts.rejected == sum(done.rejects.values())
        and done.cursor == item.cursor + counts.read
        and done.cursor <= item.object_count
        and item.counts.bytes_in + counts.bytes_in <= COUNT_MAX
        and item.counts.bytes_out + counts.bytes_out <= COUNT_MAX
        and len({*item.rejects, *done.rejects}) <= REJECT_CODES_MAX
    )


def _merged(left: object, right: object) -> dict[str, int]:
    assert isinstance(left, dict)
    assert isinstance(right, dict)
    return {code: left.get(code, 0) + right.get(code, 0) for code in sorted({*left, *right})}


def _finished(run: Run, item: Item, finished: Finished, now: datetime, backoff: Backoff) -> Verdict:
    if item.key.kind == "extract":
        if finished.last_seq < item.last_seq:
            return Verdict("duplicate")
        at_head = finished.last_seq == item.last_seq and finished.head == item.chain_head
        if not at_head or item.last_seq == 0 or item.cursor != item.object_count:
            return _contradiction(item, now, backoff)
        return Verdict("effect", item=_done(item, item.chain_head), finished=finished)
    if finished.result_digest is None or item.key.kind == "plan":
        return _contradiction(item, now, backoff)
    if item.key.kind == "finalize" and finished.manifest_uri != _manifest_uri(run, finished.result_digest):
        return _contradiction(item, now, backoff)
    return Verdict("effect", item=_done(item, finished.result_digest), finished=finished)


def _manifest_uri(run: Run, digest: bytes) -> str:
    """A worker says what the manifest holds; where it lies follows from what was admitted, and no worker moves it."""
    return manifest_uri(run.destination_uri, str(run.key.run_id), digest.hex())


def _done(item: Item, result_digest: bytes | None) -> Item:
    return replace(item, state=ItemState.FINISHED, result_digest=result_digest)


def _failed(run: Run, item: Item, failed: Failed, now: datetime, backoff: Backoff) -> Verdict:
    if failed.last_seq < item.last_seq:
        return Verdict("duplicate")
    known = _head(run, item) if item.key.kind == "extract" else None
    if failed.last_seq > item.last_seq or (failed.head is not None and failed.head != known):
        return _contradiction(item, now, backoff)
    if failed.code in FREE_OF_ATTEMPT:
        return Verdict("effect", failed.code, replace(_again(item, item.attempt), not_before=now + backoff(1)))
    if failed.transient:
        return Verdict("effect", failed.code, spend_attempt(item, failed.code, failed.cause, now, backoff))
    lost = replace(item, state=ItemState.FAILED, failure_code=failed.code, failure_cause=failed.cause)
    return Verdict("effect", failed.code, lost)


def _contradiction(item: Item, now: datetime, backoff: Backoff) -> Verdict:
    again = spend_attempt(item, Code.CHAIN_BROKEN, "transform", now, backoff)
    # Without another attempt the term stays, and the run's end calls everything back.
    return Verdict("dead_letter", Code.CHAIN_BROKEN, again, fence=again.state is ItemState.PENDING)


def _again(item: Item, attempt: int) -> Item:
    return replace(item, state=ItemState.PENDING, term=item.term + 1, attempt=attempt, worker=None, last_heard=None)


def spend_attempt(item: Item, code: str, cause: Cause, now: datetime, backoff: Backoff) -> Item:
    """Return the item back in PENDING with one attempt spent, or FAILED where it was the last."""
    attempt = item.attempt + 1
    named = replace(item, failure_code=code, failure_cause=cause)
    if attempt >= ATTEMPTS_MAX:
        return replace(named, state=ItemState.FAILED, attempt=attempt)
    return replace(_again(named, attempt), not_before=now + backoff(attempt))
