"""Positions are values; a batch knows which of its offsets held no record."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_common.kernel.positions import Lane, LaneBatch, Position, Received, TopicPartition, next_offset

TP = TopicPartition("flux-internal.runs.v1", 3)


def batch(start: int, offsets: list[int], end: int) -> LaneBatch:
    """Return a batch of a lane that stood at `start`."""
    lane = Lane("checkpoint", TP, "id", 1, start)
    return LaneBatch(lane, [Received(TP.at(offset), None, None) for offset in offsets], end)


def test_a_position_is_a_value() -> None:
    """Equal places are equal, ordered by topic, Kafka partition and offset, and cannot be changed."""
    position = TP.at(7)

    assert position == Position(TopicPartition("flux-internal.runs.v1", 3), 7)
    assert sorted([TP.at(10), TopicPartition("a", 9).at(99), TP.at(9)]) == [
        TopicPartition("a", 9).at(99),
        TP.at(9),
        TP.at(10),
    ]
    assert (str(position), next_offset(position)) == ("flux-internal.runs.v1/3@7", 8)
    with pytest.raises(dataclasses.FrozenInstanceError):
        position.offset = 8  # type: ignore[misc]


def test_a_header_counts_only_when_it_is_alone() -> None:
    """A repeated header has no value, so that nobody can choose which one is read."""
    record = Received(TP.at(0), None, None, (("a", b"1"), ("b", b"2"), ("b", b"3"), ("c", None)))

    assert [record.header(name) for name in ("a", "b", "c", "d")] == [b"1", None, None, None]
    assert [record.count(name) for name in ("a", "b", "c", "d")] == [1, 2, 1, 0]


@pytest.mark.parametrize(
    ("start", "offsets", "end", "ranges"),
    [
        (5, [5, 6, 7], 8, []),
        (5, [], 5, []),
        (5, [], 9, [(5, 8)]),
        (5, [7], 8, [(5, 6)]),
        (5, [5, 8], 10, [(6, 7), (9, 9)]),
    ],
)
def test_gaps_are_controls(start: int, offsets: list[int], end: int, ranges: list[tuple[int, int]]) -> None:
    """Offsets between the lane's next and the batch's end that hold no record, as inclusive ranges."""
    gaps = batch(start, offsets, end)

    assert gaps.control_ranges() == ranges
    assert gaps.controls == sum(last - first + 1 for first, last in ranges)


@given(st.sets(st.integers(100, 160)), st.integers(0, 5))
def test_records_and_controls_are_everything(offsets: set[int], more: int) -> None:
    """Every offset of a batch is a record or a control, never both and never neither."""
    end = max(offsets, default=99) + 1 + more
    gaps = batch(100, sorted(offsets), end).control_ranges()
    controls = [offset for first, last in gaps for offset in range(first, last + 1)]

    assert sorted([*offsets, *controls]) == list(range(100, end))
