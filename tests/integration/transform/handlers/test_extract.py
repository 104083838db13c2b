"""Extract items over real files and processes: order, fences, resumption, rejects at the source."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from flux_common.contracts.progress import SliceRecord
from flux_common.kernel.codes import Code
from flux_common.kernel.ids import sha256_hex
from flux_transform.adapters.workers import ProcessWorkers
from flux_transform.domain.items import Item, Job
from flux_transform.domain.limits import DEFAULT_LIMITS
from flux_transform.handlers.work import work

Open = Callable[..., AbstractAsyncContextManager[ProcessWorkers]]
LIMITS = replace(DEFAULT_LIMITS, slice_objects_max=2, object_bytes_max=1_000)


def make_source(folder: Path, count: int) -> Job:
    """Write so many texts; return the job that reads them in one partition."""
    (folder / "in").mkdir()
    for n in range(count):
        (folder / "in" / f"{n:03d}.txt").write_text(f"Text number {n} of this archive.\n")
    return Job(f"file://{folder}/in", f"file://{folder}/out", "text", "research", partition_objects_max=100)


def records(driver: Any) -> list[SliceRecord]:
    """Return the records that were reported for partition 0."""
    return [SliceRecord.model_validate_json(record) for record in driver.reports.records[0]]


async def test_slices_are_reported_in_order_and_stored_before(
    tmp_path: Path, open_workers: Open, make_driver: Callable[..., Any]
) -> None:
    """Each record is in the store under its digest, with every file that it names, when it is reported."""
    job = make_source(tmp_path, 5)
    run_folder: list[Path] = []

    def check(item: Item, _seq: int) -> None:
        record = driver.reports.records[item.number][-1]
        assert (run_folder[0] / f"records/{sha256_hex(record)}.json").read_bytes() == record
        for output in SliceRecord.model_validate_json(record).outputs:
            assert sha256_hex((run_folder[0] / output.name).read_bytes()) == output.sha256

    async with open_workers() as workers:
        driver = make_driver(workers, job, [tmp_path], LIMITS)
        run_folder.append(tmp_path / "out" / driver.base.run_id)
        driver.reports.on_sliced = check
        await driver.plan()
        failure = await driver.extract(0)

    assert failure is None
    assert [(record.seq, record.cursor) for record in records(driver)] == [(1, 2), (2, 4), (3, 5)]
    assert driver.reports.outcomes["extract/0"].last_seq == 3
    assert driver.reports.outcomes["extract/0"].head == sha256_hex(driver.reports.records[0][-1])


async def test_a_fenced_item_stops_between_slices_and_says_how_far_it_got(
    tmp_path: Path, open_workers: Open, make_driver: Callable[..., Any]
) -> None:
    """`failed`, DROPPED, with the last acknowledged seq and head; resuming makes the very chain of an undisturbed run."""
    job = make_source(tmp_path, 8)
    async with open_workers() as workers:
        driver = make_driver(workers, job, [tmp_path], LIMITS)
        await driver.plan()
        driver.reports.on_sliced = lambda _item, seq: driver.fences.fenced.add("extract/0") if seq == 2 else None
        dropped = await driver.extract(0)
        head = sha256_hex(driver.reports.records[0][-1])
        driver.fences.fenced.clear()
        driver.reports.on_sliced = lambda _item, _seq: None
        resumed = await work(driver.tools, driver.extract_item(0, term=2))

        undisturbed = make_driver(workers, job, [tmp_path], LIMITS)
        await undisturbed.plan()
        await undisturbed.extract(0)

    assert dropped is not None
    assert (dropped.code, dropped.last_seq, dropped.head) == (Code.DROPPED, 2, head)
    assert resumed is None
    assert driver.reports.records == undisturbed.reports.records


async def test_what_the_source_does_not_give_is_a_reject_in_the_order_of_the_plan(
    tmp_path: Path, open_workers: Open, make_driver: Callable[..., Any]
) -> None:
    """Gone, changed, too large to fetch, empty: counted, listed, and read = written + rejected."""
    job = make_source(tmp_path, 4)
    (tmp_path / "in" / "000-empty.txt").write_bytes(b"")
    (tmp_path / "in" / "001-large.txt").write_bytes(b"x" * 2_000)
    async with open_workers() as workers:
        driver = make_driver(workers, job, [tmp_path], replace(LIMITS, slice_objects_max=64))
        await driver.plan()
        (tmp_path / "in" / "002.txt").unlink()
        (tmp_path / "in" / "003.txt").write_text("Another text of another time.\n")
        assert await driver.extract(0) is None

    record = records(driver)[0]
    listing = next(output for output in record.outputs if output.name.startswith("rejects/"))
    lines = (tmp_path / "out" / driver.base.run_id / listing.name).read_text().splitlines()
    assert [(line["key"], line["code"]) for line in map(json.loads, lines)] == [
        ("000-empty.txt", "OBJECT_EMPTY"),
        ("001-large.txt", "OBJECT_TOO_LARGE"),
        ("002.txt", "SOURCE_CHANGED"),
        ("003.txt", "SOURCE_CHANGED"),
    ]
    assert (record.read, record.written, record.rejected) == (6, 2, 4)
    assert [(reject.code, reject.count) for reject in record.rejects] == [
        ("OBJECT_EMPTY", 1),
        ("OBJECT_TOO_LARGE", 1),
        ("SOURCE_CHANGED", 2),
    ]


async def test_a_slice_of_rejects_alone_has_a_record_too(
    tmp_path: Path, open_workers: Open, make_driver: Callable[..., Any]
) -> None:
    """Nothing to decode is not nothing to report."""
    job = make_source(tmp_path, 2)
    async with open_workers() as workers:
        driver = make_driver(workers, job, [tmp_path], LIMITS)
        await driver.plan()
        for path in (tmp_path / "in").iterdir():
            path.unlink()
        assert await driver.extract(0) is None

    assert [(record.read, record.written, len(record.outputs)) for record in records(driver)] == [(2, 0, 1)]
