"""Time, asked for in one place and passed in everywhere else.

Leases, `not_before` and deadlines belong to the database's clock; tokens and stalls to LogAppendTime: docs/protocol.md.
What is left — the `ce_time` of an event, durations in logs — asks a `Clock`, so that a test can hold it still.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """A source of wall-clock and monotonic time."""

    def now(self) -> datetime:
        """Return the present instant in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Return the present instant in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        return time.monotonic()


class FixedClock:
    """A clock that stands until it is moved; for tests."""

    def __init__(self, at: datetime) -> None:
        self.at = at
        self.ticks = 0.0

    def now(self) -> datetime:
        """Return the instant it was set to."""
        return self.at

    def monotonic(self) -> float:
        """Return the seconds it was set to."""
        return self.ticks


def millis(at: datetime) -> int:
    """Return `at` as whole milliseconds since 1970-01-01 UTC, the unit of Kafka timestamps."""
    return (at - _EPOCH) // timedelta(milliseconds=1)


def from_millis(ms: int) -> datetime:
    """Return the UTC instant of `ms` milliseconds since 1970-01-01."""
    return _EPOCH + timedelta(milliseconds=ms)


def rfc3339(at: datetime) -> str:
    """Return `at` in UTC with milliseconds and `Z`, as RFC 3339 writes it."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
