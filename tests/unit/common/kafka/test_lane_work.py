"""How long a lane waits before it is tried again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from flux_common.kafka.lane_work import LaneLimits, LaneWork
from flux_common.kernel.clock import SystemClock
from flux_common.kernel.errors import Overloaded, Unavailable


def lane_after(tries: int) -> Any:
    """Return what stands for a lane at its try of this number."""
    return SimpleNamespace(tries=tries - 1)


def test_a_pause_grows_up_to_what_the_problem_says_or_the_loop_allows() -> None:
    """Who waits for room asks every few seconds, however long it lasts; who waits for a server backs off."""
    nothing: Any = None
    work = LaneWork(
        nothing, nothing, nothing, LaneLimits(backoff_max_s=30), SystemClock(), lambda: 1.0, nothing, transactional=True
    )
    problems = Unavailable("X", "gone"), Overloaded("X", "full", retry_max=4.0)
    pauses = [[work._pause_for(lane_after(tries), problem) for tries in (1, 3, 20)] for problem in problems]

    assert pauses == [[1, 4, 30], [1, 4, 4]]
