"""The worker's table where something is wrong: records that name no work, silent brokers, refused commits, stops."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from flux_common.kernel.codes import Code
from flux_common.kernel.ids import run_id
from flux_transform.handlers import worker as module
from flux_transform.ports import Failure

from .conftest import AGENCY, OTHER, TP, Bench


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
