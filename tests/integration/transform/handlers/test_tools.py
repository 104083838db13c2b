"""What every handler gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flux_common.kernel.codes import Code
from flux_transform.domain.items import Job
from flux_transform.handlers.tools import Dropped


def test_a_fenced_item_is_dropped_and_another_is_not(tmp_path: Path, make_driver: Callable[..., Any]) -> None:
    """The look at the fences raises for the fenced item alone; the drop costs nobody's fault."""
    driver = make_driver(None, Job(f"file://{tmp_path}", f"file://{tmp_path}", "text", "research"), [tmp_path])
    driver.tools.check_not_dropped(driver.base)
    driver.fences.fenced.add("plan/0")

    with pytest.raises(Dropped) as dropped:
        driver.tools.check_not_dropped(driver.base)

    assert (dropped.value.code, dropped.value.transient) == (Code.DROPPED, True)
