"""The finalize step: the manifest, and what keeps it from being written."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flux_common.kernel.codes import Code
from flux_common.kernel.ids import sha256_hex
from flux_transform.adapters.workers import ProcessWorkers
from flux_transform.domain.items import Job
from flux_transform.domain.limits import DEFAULT_LIMITS
from flux_transform.handlers.work import work

Open = Callable[..., AbstractAsyncContextManager[ProcessWorkers]]


@pytest.fixture
async def driver(tmp_path: Path, open_workers: Open, make_driver: Callable[..., Any]) -> Any:
    """Return a driver with three finished partitions in two indexes."""
    (tmp_path / "in").mkdir()
    for n in range(6):
        (tmp_path / "in" / f"{n}.txt").write_text(f"Text number {n}.")
    (tmp_path / "in" / "0.txt").write_bytes(b"\x00")
    labels = {"license": "CC0-1.0"}
    job = Job(
        f"file://{tmp_path}/in", f"file://{tmp_path}/out", "text", "research", partition_objects_max=2, labels=labels
    )
    async with open_workers(count=1) as workers:
        made = make_driver(workers, job, [tmp_path], replace(DEFAULT_LIMITS, slice_objects_max=1))
        await made.plan()
        for number in range(3):
            assert await made.extract(number) is None
    assert await made.gather(0, [0, 1]) is None
    assert await made.gather(1, [2]) is None
    return made


async def test_from_the_manifest_a_reader_reaches_every_file(driver: Any, tmp_path: Path) -> None:
    """Every file of the run but the records is named with its digest and size, and the completion's numbers are its own."""
    assert await work(driver.tools, driver.finalize_item(2)) is None
    outcome = driver.reports.outcomes["finalize/0"]
    folder = tmp_path / "out" / driver.base.run_id
    manifest = json.loads((folder / f"manifest-{outcome.result_digest}.json").read_bytes())

    named = [file for files in manifest["tables"].values() for file in files]
    named += [*manifest["reject_files"], *manifest["metadata"], *manifest["indexes"], manifest["plan"]]
    for file in named:
        data = (folder / file["name"]).read_bytes()
        assert (sha256_hex(data), len(data)) == (file["sha256"], file["bytes"])
    stored = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    unnamed = stored - {file["name"] for file in named}
    assert {name for name in unnamed if not name.startswith("records/")} == {
        f"manifest-{outcome.result_digest}.json",
        "croissant.json",
        "ro-crate-metadata.json",
    }
    assert outcome.manifest_uri == f"file://{tmp_path}/out/{driver.base.run_id}/manifest-{outcome.result_digest}.json"
    assert manifest["counts"]["read"] == 6
    assert (manifest["counts"]["written"], manifest["counts"]["rejected"]) == (5, 1)
    assert outcome.rows == sum(pq.read_metadata(path).num_rows for path in (folder / "data").rglob("*.parquet"))


async def test_a_chain_head_in_the_manifest_leads_to_the_plan(driver: Any, tmp_path: Path) -> None:
    """From head to head over `prev`, every record is in the store, and the first names the plan."""
    assert await work(driver.tools, driver.finalize_item(2)) is None
    folder = tmp_path / "out" / driver.base.run_id
    manifest = json.loads(next(folder.glob("manifest-*.json")).read_bytes())

    for partition in manifest["partitions"]:
        digest = partition["head"]
        for _ in range(partition["last_seq"]):
            data = (folder / f"records/{digest}.json").read_bytes()
            assert sha256_hex(data) == digest
            digest = json.loads(data)["prev"]
        assert digest == manifest["plan"]["sha256"]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("plan", Code.PLAN_MISMATCH),
        ("index", Code.CHAIN_CORRUPT),
        ("one-index-too-few", Code.COUNTS_MISMATCH),
        ("one-index-twice", Code.CHAIN_CORRUPT),
    ],
)
async def test_what_does_not_fit_the_plan_has_no_manifest(
    driver: Any, tmp_path: Path, damage: str, expected: Code
) -> None:
    """A changed plan or index, a missing or repeated one: the run fails, and no manifest is stored."""
    folder = tmp_path / "out" / driver.base.run_id
    item = driver.finalize_item(2)
    if damage in {"plan", "index"}:
        path = next(folder.glob("plan-*" if damage == "plan" else "index/*"))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
    elif damage == "one-index-too-few":
        item = replace(item, indexes=item.indexes[:1])
    else:
        item = replace(item, indexes=(item.indexes[0], replace(item.indexes[0], number=1)))

    failure = await work(driver.tools, item)

    assert failure.code == expected
    assert list(folder.glob("manifest-*")) == []
