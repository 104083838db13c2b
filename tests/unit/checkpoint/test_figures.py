"""What checkpoint counts, read from the registry as Prometheus would."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import pytest

from flux_checkpoint.domain.model import Item, ItemKey
from flux_checkpoint.domain.states import ItemState
from flux_checkpoint.handlers.figures import count_end, count_ended, count_pass, count_reports
from flux_common.kernel.codes import Code
from flux_common.kernel.positions import Lane, LaneBatch, Received, TopicPartition
from flux_common.observability.metrics import REGISTRY
from flux_common.postgres.lanes import Advance, LedgerException

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def an_item(state: ItemState, code: str | None = None) -> Item:
    key = ItemKey("nasa", UUID(int=1), "gather", 0)
    return Item(key, state, 1, 0, failure_code=code, dispatched_at=NOW - timedelta(seconds=3))


def test_a_batch_is_counted_by_verdict() -> None:
    """Applied is what is no exception; dead letters have their code."""
    tp = TopicPartition("figures-topic", 0)
    records = [Received(tp.at(offset), None, b"") for offset in range(5)]
    batch = LaneBatch(Lane("checkpoint", tp, "id", 1, 0), records, 5)
    advance = Advance(batch, cast("Any", None), NOW)
    advance.exceptions = [LedgerException(0, "duplicate"), LedgerException(3, "dead_letter", "CHAIN_BROKEN")]
    before = {verdict: value("flux_progress_reports_total", verdict=verdict) for verdict in ("applied", "duplicate")}
    count_reports(advance)

    assert value("flux_progress_reports_total", verdict="applied") - before["applied"] == 3
    assert value("flux_progress_reports_total", verdict="duplicate") - before["duplicate"] == 1
    assert value("flux_dead_letters_total", topic="figures-topic", code="CHAIN_BROKEN") == 1


def test_an_ended_item_is_observed_and_a_running_one_is_not() -> None:
    """From dispatch to the end."""
    before = value("flux_partition_duration_seconds_sum", kind="gather", outcome="finished")
    count_ended([an_item(ItemState.FINISHED), an_item(ItemState.RUNNING)], NOW)

    after = value("flux_partition_duration_seconds_sum", kind="gather", outcome="finished")
    assert after - before == pytest.approx(3.0)


def test_dispatches_and_stalls_are_counted_by_kind() -> None:
    """An item taken back for another reason is no stall."""
    before = value("flux_stalls_total", kind="gather"), value("flux_dispatches_total", kind="gather")
    back = [an_item(ItemState.PENDING, Code.STALLED), an_item(ItemState.PENDING, Code.QUEUED_TOO_LONG)]
    count_pass([an_item(ItemState.DISPATCHED)], back)

    assert value("flux_stalls_total", kind="gather") - before[0] == 1
    assert value("flux_dispatches_total", kind="gather") - before[1] == 1


def test_a_corrupt_chain_is_an_integrity_failure() -> None:
    """The end is counted by state and cause; the code that says corruption is counted too."""
    before = value("flux_integrity_failures_total", code="CHAIN_CORRUPT")
    count_end("FAILED", "infrastructure", Code.CHAIN_CORRUPT)
    count_end("COMPLETED", None, None)

    assert value("flux_integrity_failures_total", code="CHAIN_CORRUPT") - before == 1
    assert value("flux_runs_ended_total", state="FAILED", cause="infrastructure") >= 1
