"""What checkpoint counts: per batch and per pass, after the commit, never inside it.

A figure that is lost with a crash is no loss; one that counts what was rolled back would be a lie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from flux_checkpoint.domain.model import Item
from flux_checkpoint.domain.states import ItemState
from flux_checkpoint.ports import LeaseStore
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Unavailable
from flux_common.observability import metrics
from flux_common.observability.logging import get_logger
from flux_common.postgres.lanes import Advance
from flux_common.runtime.service import Service

log = get_logger(__name__)

OPEN_STATES = ("ADMITTED", "PLANNING", "RUNNING", "PAUSED", "FINALIZING", "CANCELLING")
LOOK_SECONDS = 10.0


def count_reports(advance: Advance) -> None:
    """Count what became of a batch's records."""
    verdicts = Counter(exception.kind for exception in advance.exceptions)
    applied = len(advance.batch.records) - sum(verdicts.values())
    for verdict, number in [*verdicts.items(), ("applied", applied)]:
        metrics.progress_reports.labels(verdict).inc(number)
    for exception in advance.exceptions:
        if exception.kind == "dead_letter":
            metrics.dead_letters.labels(advance.batch.lane.tp.topic, exception.code or "").inc()


def count_ended(items: Iterable[Item], now: datetime) -> None:
    """Observe how long items took from dispatch to their end."""
    for item in items:
        if item.state in {ItemState.FINISHED, ItemState.FAILED} and item.dispatched_at is not None:
            seconds = (now - item.dispatched_at).total_seconds()
            metrics.partition_duration_seconds.labels(item.key.kind, item.state.lower()).observe(max(0.0, seconds))


def count_pass(out: Iterable[Item], back: Iterable[Item]) -> None:
    """Count what a pass dispatched, and what it took back because its worker fell silent."""
    for item in out:
        metrics.dispatches.labels(item.key.kind).inc()
    for item in back:
        if item.failure_code == Code.STALLED:
            metrics.stalls.labels(item.key.kind).inc()


def count_end(state: str, cause: str | None, code: str | None) -> None:
    """Count a run attempt's end."""
    metrics.runs_ended.labels(state, cause or "").inc()
    if code in {Code.CHAIN_CORRUPT, Code.PLAN_MISMATCH, Code.COUNTS_MISMATCH}:
        metrics.integrity_failures.labels(code).inc()


async def watch_runs(service: Service[Any], leases: LeaseStore) -> None:
    """Keep the gauges of open runs."""
    going = True
    while going:
        try:
            found = await leases.open_runs()
            for state in OPEN_STATES:
                metrics.runs_open.labels(state).set(found[state].count if state in found else 0)
            metrics.run_oldest_silence_seconds.set(max((one.silence_s for one in found.values()), default=0.0))
        except Unavailable as problem:
            log.info("open runs not counted", code=problem.code)
        going = await service.pause(LOOK_SECONDS)
