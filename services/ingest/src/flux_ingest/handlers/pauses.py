"""Pauses between the records of a batch, which is read on the event loop that all lanes, the relays and the probes share.

Proving a token takes a fifth of a millisecond, and a neighbour's batch waits for the database a dozen times: it would wait
for the rest of a large batch each time. So a batch is read by turns; one of an agency that presses (domain/brake.py) leaves
the others as much time as it takes, up to a bound, for it holds a slot that others may wait for.
"""

from __future__ import annotations

import asyncio
from typing import Final

from flux_common.kernel.clock import Clock

BREATH_S: Final = 0.002  # how long records are read in one go
GENTLE_BREATH_S: Final = 0.0002  # the same in a batch that is read gently: about a record
GENTLE_PAUSES_S: Final = 0.1  # of one batch


class Pauses:
    """What reading a batch leaves to other tasks: turns, and, of one that is read gently, as much time as it takes itself."""

    def __init__(self, clock: Clock, *, gently: bool) -> None:
        self._clock, self._gently = clock, gently
        self._since = clock.monotonic()
        self._left_s = GENTLE_PAUSES_S

    async def between(self) -> None:
        """Pause between two records, if it is time to."""
        spent = self._clock.monotonic() - self._since
        gently = self._gently and self._left_s > 0
        if spent < (GENTLE_BREATH_S if gently else BREATH_S):
            return
        begun = self._clock.monotonic()
        await asyncio.sleep(spent if gently else 0)
        self._since = self._clock.monotonic()
        self._left_s -= self._since - begun
