"""The words of the work."""

from __future__ import annotations

from flux_transform.domain.items import Item, Job


def test_an_item_is_named_by_run_kind_and_number() -> None:
    """`run_id/kind/number`, as in every report."""
    item = Item("nasa", "run", "r", 1, "gather", 2, 1, Job("file:///a", "file:///b", "text", "research"))

    assert item.name == "run/gather/2"
