"""Time is UTC, in whole milliseconds where Kafka counts, and stands still when a test wants it to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flux_common.contracts.types import Timestamp
from flux_common.kernel.clock import FixedClock, SystemClock, from_millis, millis, rfc3339


@given(st.integers(0, 4_102_444_800_000))
@example(2_186_587_878_976)  # lost a millisecond when this went through floats
def test_milliseconds_are_exact(ms: int) -> None:
    """An instant of Kafka's is the same number again."""
    assert millis(from_millis(ms)) == ms


def test_milliseconds_are_whole() -> None:
    """What is less than a millisecond is cut off, before 1970 too."""
    at = datetime(1970, 1, 1, 0, 0, 1, 999, tzinfo=UTC)

    assert [millis(at), millis(at - timedelta(seconds=2))] == [1000, -1000]


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (datetime(2026, 11, 24, 9, tzinfo=UTC), "2026-11-24T09:00:00.000Z"),
        (datetime(2026, 11, 24, 9, 0, 0, 1999, tzinfo=UTC), "2026-11-24T09:00:00.001Z"),
        (datetime(2026, 11, 24, 0, tzinfo=timezone(timedelta(hours=5))), "2026-11-23T19:00:00.000Z"),
    ],
)
def test_an_instant_as_text(at: datetime, expected: str) -> None:
    """RFC 3339 in UTC with three digits and Z."""
    assert rfc3339(at) == expected


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001
def test_an_instant_as_text_is_a_timestamp(at: datetime) -> None:
    """What the clock writes, the contract takes."""
    from pydantic import TypeAdapter

    text = rfc3339(at)

    assert TypeAdapter(Timestamp).validate_python(text, strict=True) == text


def test_a_fixed_clock_moves_when_told() -> None:
    """It stands where it was put, on both faces."""
    clock = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
    clock.at += timedelta(hours=1)
    clock.ticks += 2.5

    assert (clock.now(), clock.monotonic()) == (datetime(2026, 1, 1, 1, tzinfo=UTC), 2.5)


def test_the_systems_clock_is_utc() -> None:
    """It knows its zone, and its monotonic face never goes back."""
    clock = SystemClock()

    assert clock.now().utcoffset() == timedelta(0)
    assert clock.monotonic() <= clock.monotonic()
