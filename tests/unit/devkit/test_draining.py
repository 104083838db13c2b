"""What an orchestrator would say of a stop, by the answers of `/readyz` from the signal on."""

from __future__ import annotations

import pytest

from flux_devkit.draining import Stop


@pytest.mark.parametrize(
    ("answers", "ready_too_long", "seen_draining"),
    [
        ((503, 503), False, True),
        ((200, 503), False, True),  # asked before the signal was there
        ((200, 200, 503), True, True),
        ((503, 200), True, True),
        ((200, 200), True, False),
        ((200,), False, False),  # ended before a second look
        ((), False, False),
    ],
)
def test_only_the_first_look_may_find_it_ready(
    answers: tuple[int, ...], ready_too_long: bool, seen_draining: bool
) -> None:
    """And a process that ended at once was not seen to drain, which is no fault of its own."""
    stop = Stop("audit", 0, 0.1, answers, {})

    assert (stop.ready_too_long, stop.seen_draining) == (ready_too_long, seen_draining)
