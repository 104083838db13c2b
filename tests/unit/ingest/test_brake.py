"""The brake takes refusals past the limit of their minute, in their order, and nothing else."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_common.kernel.codes import Code
from flux_common.kernel.positions import TopicPartition
from flux_ingest.domain.brake import brake, minute_of, presses, ranges, refusals
from flux_ingest.domain.model import (
    Accepted,
    Asked,
    DeadLettered,
    Decision,
    Flooded,
    Kind,
    Redelivered,
    Rejected,
    Repeated,
)

TP = TopicPartition("flux.nasa.run.requests.v1", 0)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def decision(kind: str, offset: int) -> Decision:
    """Return a decision of a kind, on the record at `offset`."""
    at = TP.at(offset)
    asked = Asked(at, Kind.RUN, "nasa", f"r-{offset}", None, "0" * 64, None)
    kinds: dict[str, Decision] = {
        "accepted": Accepted(asked, None),
        "repeated": Repeated(asked, at),
        "rejected": Rejected(at, Kind.RUN, Code.TOKEN_MISSING, proven=False),
        "dead": DeadLettered(at, Code.NOT_UTF8),
        "redelivered": Redelivered(at, None),
    }
    return kinds[kind]


def braked(kinds: list[str], minutes: list[int], before: dict[int, int] | None = None, limit: int = 2) -> list[str]:
    """Return each decision's kind after the brake, `-` where it was taken; minutes are numbers."""
    decisions = [decision(kind, offset) for offset, kind in enumerate(kinds)]
    stamps = [NOON + timedelta(minutes=minute) for minute in minutes]
    counted = {NOON + timedelta(minutes=minute): number for minute, number in (before or {}).items()}
    after = brake(decisions, stamps, counted, limit)
    return ["-" if isinstance(one, Flooded) else kind for kind, one in zip(kinds, after, strict=True)]


def test_a_calm_minute_is_told_record_by_record() -> None:
    """As many refusals as the limit have their own answers."""
    assert braked(["rejected", "accepted", "dead"], [0, 0, 0]) == ["rejected", "accepted", "dead"]


def test_past_the_limit_refusals_are_taken() -> None:
    """The third refusal of the minute and those after it; acceptances and repetitions stay."""
    kinds = ["rejected", "dead", "rejected", "accepted", "repeated", "dead", "redelivered"]

    assert braked(kinds, [0] * 7) == ["rejected", "dead", "-", "accepted", "repeated", "-", "redelivered"]


def test_the_count_goes_on_from_batch_to_batch() -> None:
    """What other batches and other lanes of the agency refused in this minute counts."""
    assert braked(["rejected", "rejected"], [0, 0], {0: 1}) == ["rejected", "-"]
    assert braked(["rejected", "rejected"], [0, 0], {0: 900}) == ["-", "-"]


def test_each_minute_has_its_own_count() -> None:
    """A flood ends with its minute; a late record counts in the minute when it arrived."""
    assert braked(["rejected"] * 4, [0, 1, 0, 2], {0: 2}) == ["-", "rejected", "-", "rejected"]


def test_a_minute_is_that_of_the_clock() -> None:
    """Seconds do not matter."""
    assert minute_of(NOON + timedelta(seconds=59, microseconds=999_999)) == NOON


@given(
    st.lists(
        st.tuples(st.sampled_from(["accepted", "repeated", "rejected", "dead", "redelivered"]), st.integers(0, 2)),
        max_size=40,
    ),
    st.integers(1, 5),
    st.integers(0, 40),
)
def test_how_a_lane_is_cut_into_batches_does_not_matter(events: list[tuple[str, int]], limit: int, cut: int) -> None:
    """One batch or two, counted between: the same records are taken; and their number is what the limit leaves."""
    kinds, minutes = [kind for kind, _ in events], [minute for _, minute in events]
    whole = braked(kinds, minutes, limit=limit)
    stamps = [NOON + timedelta(minutes=minute) for minute in minutes[:cut]]
    added = refusals([decision(kind, 0) for kind in kinds[:cut]], stamps)
    before = {int((at - NOON) / timedelta(minutes=1)): number for at, number in added.items()}
    first, second = braked(kinds[:cut], minutes[:cut], limit=limit), braked(kinds[cut:], minutes[cut:], before, limit)
    refused = Counter(minute for kind, minute in events if kind in ("rejected", "dead"))

    assert first + second == whole
    assert whole.count("-") == sum(max(0, number - limit) for number in refused.values())


@pytest.mark.parametrize(
    ("refused", "seconds", "pressing"),
    [
        (30, 0, False),  # a twentieth at once
        (31, 0, True),
        (330, 30, False),
        (331, 30, True),
        (600, 59, False),
        (601, 59, True),
        (600, 600, False),  # a backlog may have its minute's whole limit
        (601, 600, True),
        (30, -5, False),  # the broker's clock is ahead of the database's
    ],
)
def test_who_presses_is_ahead_of_the_minutes_limit(refused: int, seconds: int, pressing: bool) -> None:
    """The limit grows through the minute, from a head start on; past it everybody presses."""
    assert presses({NOON: refused}, 600, NOON + timedelta(seconds=seconds)) == pressing
    assert not presses({NOON: 1}, 1, NOON)  # one is never a press


@given(st.sets(st.integers(0, 60)))
def test_ranges_are_the_fewest(offsets: set[int]) -> None:
    """They hold exactly the offsets, and no two could be one."""
    found = ranges(sorted(offsets))

    assert [offset for first, last in found for offset in range(first, last + 1)] == sorted(offsets)
    assert all(one[1] + 1 < other[0] for one, other in pairwise(found))
