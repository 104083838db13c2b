"""A whole run in a process of its own: `python conformance_run.py CONTENT_TYPE SOURCE OUT WORKERS`.

Started by test_conformance.py with other hash seeds, locales and time zones; prints the run's folder.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from flux_transform.adapters.plan_file import PlanFiles
from flux_transform.adapters.store import Access, OpenStores
from flux_transform.adapters.workers import ProcessWorkers
from flux_transform.domain.items import Job
from flux_transform.domain.limits import DEFAULT_LIMITS
from flux_transform.handlers.tools import Tools
from flux_transform.version import transform_version


def driver_module() -> ModuleType:
    """Load the driver that the tests of this folder use."""
    spec = importlib.util.spec_from_file_location("driver", Path(__file__).with_name("conftest.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["driver"] = module
    spec.loader.exec_module(module)
    return module


async def main(content_type: str, source: str, out: str, workers: str) -> None:
    """Carry one run from plan to manifest."""
    parts: Any = driver_module()
    reports, fences = parts.Reports(), parts.Heard()
    job = Job(f"file://{source}", f"file://{out}", content_type, "research", partition_objects_max=7)
    stores = OpenStores(Access(file_roots=(Path(source), Path(out))))
    async with ProcessWorkers(int(workers), DEFAULT_LIMITS) as pool:
        tools = Tools(stores, PlanFiles(), pool, reports, fences, DEFAULT_LIMITS, transform_version())
        driver = parts.Driver(tools, reports, fences, job)
        await driver.run()
    print(f"{out}/{driver.base.run_id}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
