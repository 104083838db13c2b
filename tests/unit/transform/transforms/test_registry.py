"""The registry of transforms."""

from __future__ import annotations

import pytest

from flux_common.kernel.codes import Code
from flux_transform.domain.failures import WorkFailed
from flux_transform.transforms import registry


def test_every_transform_has_tables_in_order_and_work() -> None:
    """What the registry names can be loaded and is of one shape."""
    for transform in registry.load_all():
        names = [table.name for table in transform.TABLES]

        assert names == sorted(names)
        assert callable(transform.work)


def test_an_unknown_use_case_is_policy() -> None:
    """No transform is a failure that no retry mends."""
    with pytest.raises(WorkFailed) as failed:
        registry.load("images", "teleport")

    assert (failed.value.code, failed.value.cause) == (Code.USE_CASE_NOT_AVAILABLE, "policy")
    assert not registry.available("images", "teleport")
