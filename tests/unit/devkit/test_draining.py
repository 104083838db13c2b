"""What an orchestrator would say of a stop, by the answers of `/readyz` after the signal."""

from __future__ import annotations

import pytest

from flux_devkit.draining import Stop


@pytest.mark.parametrize(
    ("answers", "unready_at_once"),
    [
        ((503, 503), True),
        ((200, 503), True),  # asked in the same moment
        ((200, 200, 503), False),
        ((503, 200), False),
        ((200,), False),
        ((), False),
    ],
)
def test_only_the_first_look_may_find_it_ready(answers: tuple[int, ...], unready_at_once: bool) -> None:
    """And a drain that nobody saw is not shown."""
    assert Stop("audit", 0, 0.1, answers, {}).unready_at_once == unready_at_once
