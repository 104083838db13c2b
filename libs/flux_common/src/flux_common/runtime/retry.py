"""Pauses between tries: exponential, with jitter, so that many processes do not come back in step.

"Equal jitter": a pause lies between half of its ceiling and the ceiling, so that it is never close to none.
"""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Grows from `first_s` to at most `max_s` seconds, doubling; `reset` after a success."""

    def __init__(self, first_s: float = 0.1, max_s: float = 5.0, draw: Callable[[], float] = random.random) -> None:
        self.first_s = first_s
        self.max_s = max_s
        self.tries = 0
        self._draw = draw

    def next_s(self) -> float:
        """Return the seconds to pause before the next try, and count this one."""
        ceiling = min(self.max_s, self.first_s * 2.0 ** min(self.tries, 32))
        self.tries += 1
        return ceiling * (0.5 + self._draw() / 2)

    def reset(self) -> None:
        """Begin at the shortest pause again."""
        self.tries = 0


def jittered(seconds: float, draw: Callable[[], float] = random.random) -> float:
    """Return between half of `seconds` and all of them."""
    return seconds * (0.5 + draw() / 2)


def jitter() -> float:
    """Return a number in [0, 1) for pauses that should differ between processes."""
    return random.random()  # noqa: S311 - jitter is no secret
