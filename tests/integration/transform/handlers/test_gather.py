"""Gather steps: what is walked, and what fails the run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flux_common.kernel.codes import Code
from flux_transform.adapters.workers import ProcessWorkers
from flux_transform.domain.items import Head, Job
from flux_transform.domain.limits import DEFAULT_LIMITS
from flux_transform.handlers.work import work

Open = Callable[..., AbstractAsyncContextManager[ProcessWorkers]]


@pytest.fixture
async def driver(tmp_path: Path, open_workers: Open, make_driver: Callable[..., Any]) -> Any:
    """Return a driver with two finished partitions of two slices each."""
    (tmp_path / "in").mkdir()
    for n in range(4):
        (tmp_path / "in" / f"{n}.txt").write_text(f"Text number {n}.")
    job = Job(f"file://{tmp_path}/in", f"file://{tmp_path}/out", "text", "research", partition_objects_max=2)
    async with open_workers(count=1) as workers:
        made = make_driver(workers, job, [tmp_path], replace(DEFAULT_LIMITS, slice_objects_max=1))
        await made.plan()
        for number in range(2):
            assert await made.extract(number) is None
    return made


async def test_an_index_names_every_output_of_its_partitions(driver: Any) -> None:
    """Its digest is reported, with the files and rows that it names; gathering again changes nothing."""
    assert await driver.gather(0, [0, 1]) is None
    outcome = driver.reports.outcomes["gather/0"]
    assert await driver.gather(0, [1, 0]) is None

    assert outcome.result_digest is not None
    assert outcome.files == 8
    assert driver.reports.outcomes["gather/0"] == outcome


@pytest.mark.parametrize("damage", ["missing", "changed", "not-canonical"])
async def test_a_record_that_is_not_what_its_digest_says_fails_the_run(
    driver: Any, tmp_path: Path, damage: str
) -> None:
    """A missing or changed record is CHAIN_CORRUPT; no index is reported."""
    record = next((tmp_path / "out" / driver.base.run_id / "records").iterdir())
    if damage == "missing":
        record.unlink()
    else:
        record.write_bytes(
            record.read_bytes().replace(b'"read":1', b'"read":2' if damage == "changed" else b'"read": 1')
        )

    failure = await driver.gather(0, [0, 1])

    assert failure.code == Code.CHAIN_CORRUPT
    assert "gather/0" not in driver.reports.outcomes


async def test_a_head_of_another_partition_fails_the_run(driver: Any) -> None:
    """The item's heads are compared with the records that they lead to."""
    item = driver.gather_item(0, [0, 1])
    swapped = tuple(Head(1 - head.partition, head.last_seq, head.digest) for head in item.heads)

    failure = await work(driver.tools, replace(item, heads=swapped))

    assert failure.code == Code.CHAIN_CORRUPT
