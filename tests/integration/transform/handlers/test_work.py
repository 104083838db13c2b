"""The life of an item: what is refused at once, and how failures are reported."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Unavailable
from flux_transform.domain.items import Item, Job
from flux_transform.domain.plan import PlannedObject
from flux_transform.domain.records import SliceWork
from flux_transform.handlers.work import work
from flux_transform.ports import SliceTask


class NoWorkers:
    """Workers that nobody may call."""

    async def work(self, task: SliceTask) -> SliceWork:
        """Refuse."""
        raise AssertionError("no decoder should run")


@pytest.fixture
def driver(tmp_path: Path, make_driver: Callable[..., Any]) -> Any:
    """Return a driver over an archive of one text."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("alpha")
    job = Job(f"file://{tmp_path}/in", f"file://{tmp_path}/out", "text", "research")
    return make_driver(NoWorkers(), job, [tmp_path], alive_seconds=0.01)


def everything(folder: Path) -> list[Path]:
    """Return all paths below a folder."""
    return sorted(folder.rglob("*"))


def changed(driver: Any, **job: Any) -> Item:
    """Return the plan item with another job."""
    item: Item = replace(driver.base, job=replace(driver.base.job, **job))
    return item


async def test_a_worker_of_another_version_refuses_before_any_output(driver: Any, tmp_path: Path) -> None:
    """VERSION_MISMATCH, and not even `started`."""
    await driver.plan()
    before = everything(tmp_path)

    failure = await work(driver.tools, replace(driver.extract_item(0), transform_version="other"))

    assert (failure.code, failure.transient) == (Code.VERSION_MISMATCH, True)
    assert driver.reports.started_items == ["plan/0"]
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("job", "code", "cause", "transient"),
    [
        ({"use_case": "teleport"}, Code.USE_CASE_NOT_AVAILABLE, "policy", False),
        ({"source_uri": "file:///etc"}, Code.SOURCE_NOT_ALLOWED, "policy", False),
        ({"destination_uri": "file:///etc"}, Code.SOURCE_NOT_ALLOWED, "policy", False),
        ({"include": ("*.tif",)}, Code.SOURCE_EMPTY, "input", False),
    ],
)
async def test_a_failure_says_why_whose_fault_it_is_and_whether_to_try_again(
    driver: Any, job: dict[str, Any], code: Code, cause: str, transient: bool
) -> None:
    """One report, `failed`, with nothing acknowledged before it."""
    failure = await work(driver.tools, changed(driver, **job))

    assert (failure.code, failure.cause, failure.transient, failure.last_seq) == (code, cause, transient, 0)
    assert driver.reports.failures == {"plan/0": failure}


async def test_a_missing_source_folder_is_the_inputs_fault(driver: Any, tmp_path: Path) -> None:
    """It fails the run, it is not waited for."""
    failure = await work(driver.tools, changed(driver, source_uri=f"file://{tmp_path}/none"))

    assert (failure.code, failure.cause) == (Code.SOURCE_MISSING, "input")


async def test_a_store_that_does_not_answer_is_tried_again(driver: Any, tmp_path: Path) -> None:
    """The destination's folder cannot be made: transient, infrastructure."""
    (tmp_path / "out").write_text("a file where the folder should be")

    failure = await work(driver.tools, driver.base)

    assert (failure.code, failure.cause, failure.transient) == (Code.STORE_UNAVAILABLE, "infrastructure", True)


async def test_a_broker_that_does_not_answer_is_the_loops_to_handle(driver: Any) -> None:
    """Without an acknowledged report the item has not ended; its offset must stay."""

    async def silent(*_: Any) -> None:
        raise Unavailable(Code.BROKER_UNAVAILABLE, "no broker")

    driver.reports.planned = silent

    with pytest.raises(Unavailable) as raised:
        await work(driver.tools, driver.base)

    assert raised.value.code == Code.BROKER_UNAVAILABLE
    assert driver.reports.failures == {}


async def test_an_item_fenced_before_it_began_is_dropped(driver: Any) -> None:
    """It says so, and does nothing."""
    driver.fences.fenced.add("plan/0")

    failure = await work(driver.tools, driver.base)

    assert failure.code == Code.DROPPED
    assert driver.reports.started_items == []


async def test_an_item_says_that_it_is_alive_while_it_is_worked(driver: Any) -> None:
    """The beat runs beside the work and ends with it."""
    slow = driver.tools.plans.read_partition

    async def slowly(store: Any, item: Item) -> tuple[PlannedObject, ...]:
        await asyncio.sleep(0.2)
        found: tuple[PlannedObject, ...] = await slow(store, item)
        return found

    await driver.plan()
    (Path(driver.base.job.source_uri.removeprefix("file://")) / "a.txt").unlink()
    driver.tools.plans.read_partition = slowly
    failure = await driver.extract(0)
    beats = driver.reports.beats
    await asyncio.sleep(0.05)

    assert failure is None
    assert beats > 2
    assert driver.reports.beats == beats
