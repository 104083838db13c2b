"""Runs, items and reports as values: they do not change, they order, and counts add up."""

from __future__ import annotations

from dataclasses import fields
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_checkpoint.domain import model
from flux_checkpoint.domain.model import Counts, ItemKey, RunKey
from flux_common.contracts.progress import PARTITIONS_MAX
from flux_common.contracts.runs import RunCompleted
from flux_common.contracts.types import SAFE_INTEGER_MAX
from flux_common.contracts.work import WorkDispatched

COUNTS = st.builds(Counts, *(st.integers(0, 2**40) for _ in fields(Counts)))


@given(COUNTS, COUNTS, COUNTS)
def test_counts_add_up_in_any_order(one: Counts, two: Counts, three: Counts) -> None:
    """Addition is commutative and associative, and zero counts change nothing."""
    assert one + two == two + one
    assert (one + two) + three == one + (two + three)
    assert one + Counts() == one


@given(COUNTS, COUNTS)
def test_what_was_read_stays_written_or_rejected(one: Counts, two: Counts) -> None:
    """I9: sums of counts that balance balance."""

    def balanced(counts: Counts) -> Counts:
        return Counts(counts.written + counts.rejected, counts.written, counts.rejected)

    total = balanced(one) + balanced(two)

    assert total.read == total.written + total.rejected


def test_keys_order_as_the_database_locks_them() -> None:
    """The lock order: agency, run, kind, number; a uuid orders by its bytes, as in PostgreSQL."""
    keys = [
        ItemKey("nasa", UUID(int=1), "plan", 0),
        ItemKey("nasa", UUID(int=1), "extract", 10),
        ItemKey("nasa", UUID(int=1), "extract", 9),
        ItemKey("esa", UUID(int=2**127), "extract", 0),
        ItemKey("esa", UUID(int=2), "extract", 0),
    ]

    assert sorted(keys) == [keys[4], keys[3], keys[2], keys[1], keys[0]]
    assert sorted(keys, key=lambda key: (key.agency_id, key.run_id.bytes, key.kind, key.number)) == sorted(keys)


def test_an_item_is_called_by_its_run_kind_and_number() -> None:
    """`run_id/kind/number` is the name that headers, keys and facts carry."""
    key = ItemKey("nasa", UUID(int=1), "extract", 7)

    assert str(key) == "00000000-0000-0000-0000-000000000001/extract/7"
    assert key.run == RunKey("nasa", UUID(int=1))


VALUES = [value for value in vars(model).values() if getattr(value, "__module__", "") == model.__name__]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.__name__)
def test_values_do_not_change(value: Any) -> None:
    """Every value of the domain is a frozen dataclass."""
    assert value.__dataclass_params__.frozen


def test_the_limits_are_those_of_the_contracts() -> None:
    """What the domain bounds is what events can say: integers, reject codes, heads and indexes of one item."""

    def longest(of: Any, name: str) -> Any:
        return next(item.max_length for item in of.model_fields[name].metadata if hasattr(item, "max_length"))

    assert model.COUNT_MAX == SAFE_INTEGER_MAX
    assert longest(RunCompleted, "rejects_by_code") == model.REJECT_CODES_MAX
    assert longest(WorkDispatched, "heads") == model.GATHER_HEADS_MAX
    assert longest(WorkDispatched, "indexes") >= -(-PARTITIONS_MAX // model.GATHER_HEADS_MAX)
