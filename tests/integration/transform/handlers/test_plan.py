"""The plan step over real files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flux_common.kernel.codes import Code
from flux_common.kernel.ids import sha256_hex
from flux_transform.domain.items import Job
from flux_transform.handlers.work import work


def driven(tmp_path: Path, make_driver: Callable[..., Any]) -> Any:
    """Return a driver over five files in two-object partitions."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("c.txt", "deep/b.txt", "a.txt", "d.txt", "e.jpg"):
        (tmp_path / "in" / name).write_text(name)
    job = Job(f"file://{tmp_path}/in", f"file://{tmp_path}/out", "text", "research", include=("*.txt",))
    return make_driver(None, Job(**{**_fields(job), "partition_objects_max": 2}), [tmp_path])


def _fields(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in Job.__dataclass_fields__}


async def test_the_plan_is_stored_under_its_digest_and_reported(
    tmp_path: Path, make_driver: Callable[..., Any]
) -> None:
    """Digest, objects, bytes, and the objects of each partition; planning again changes nothing."""
    driver = driven(tmp_path, make_driver)

    plan = await driver.plan()
    again = await driver.plan()

    files = list((tmp_path / "out" / driver.base.run_id).iterdir())
    assert (plan.objects, plan.bytes, plan.partitions) == (4, 5 + 5 + 10 + 5, (2, 2))
    assert [file.name for file in files] == [f"plan-{plan.digest}.ndjson.zst"]
    assert sha256_hex(files[0].read_bytes()) == plan.digest
    assert again == plan


async def test_an_item_fenced_while_it_lists_reports_no_plan(tmp_path: Path, make_driver: Callable[..., Any]) -> None:
    """The last look at the fences is before the report."""
    driver = driven(tmp_path, make_driver)
    put = driver.tools.plans.encode

    def fencing(objects: Any) -> bytes:
        driver.fences.fenced.add("plan/0")
        data: bytes = put(objects)
        return data

    driver.tools.plans.encode = fencing

    failure = await work(driver.tools, driver.base)

    assert failure.code == Code.DROPPED
    assert driver.reports.plan is None
