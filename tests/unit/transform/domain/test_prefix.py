"""Which offsets may be committed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_transform.domain.prefix import ContiguousPrefix


def test_a_slow_item_holds_the_commit_back_and_a_fast_one_is_not_lost() -> None:
    """Only what lies before the first unfinished offset is committed; gaps of control records do not matter."""
    prefix = ContiguousPrefix()
    for offset in (10, 11, 14):
        prefix.begin(offset)

    found = [prefix.done(11), prefix.done(10), prefix.done(14)]

    assert found == [None, 12, 15]
    assert prefix.committable == 15
    assert prefix.pending == 0


def test_nothing_finished_means_nothing_to_commit() -> None:
    """An empty tracker commits nothing."""
    prefix = ContiguousPrefix()
    prefix.begin(0)

    assert prefix.committable is None
    assert prefix.pending == 1


def test_offsets_come_in_order_and_are_done_once() -> None:
    """A repeated, older or unknown offset is a fault of the caller."""
    prefix = ContiguousPrefix()
    prefix.begin(5)
    with pytest.raises(ValueError, match="does not follow"):
        prefix.begin(5)
    prefix.done(5)
    with pytest.raises(ValueError, match="does not follow"):
        prefix.begin(5)
    with pytest.raises(KeyError):
        prefix.done(5)


@given(st.permutations(range(12)), st.integers(0, 12))
def test_no_offset_is_committed_before_all_before_it_are_done(order: list[int], count: int) -> None:
    """In whatever order items end, the commit is the length of the finished prefix."""
    prefix = ContiguousPrefix()
    for offset in range(12):
        prefix.begin(offset)
    for offset in order[:count]:
        prefix.done(offset)
    finished = set(order[:count])

    expected = next(n for n in range(13) if n not in finished)

    assert (prefix.committable or 0) == expected
