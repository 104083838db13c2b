"""Whether a consumer is a member of its group, as probes understand it.

A rebalance is part of a member's life: another one came or went, the assignment is being made anew, and work goes on in
a moment. It must not flip readiness, or every scaling step would. One that does not end is another matter.

| state | rebalancing | joined |
|---|---|---|
| new: no assignment yet | yes | no |
| member, with an assignment (an empty one is one) | no | yes |
| rebalancing | yes | yes, for `patience_s`; then no |

Whether the loop that polls lives is told beside it (`Polls`). A poll may last as long as a rebalance does, for a restart
ends none; a loop that stands still *between* two polls has no such excuse. The client then leaves the group by itself and
waits for the next poll, which looks like a rebalance that never ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flux_common.kernel.clock import Clock


class Membership:
    """Told by the consumer's listener; asked by the loop and by probes."""

    def __init__(self, clock: Clock, patience_s: float) -> None:
        self._clock, self._patience_s = clock, patience_s
        self._revoked: float | None = None
        self.rebalancing = True

    def revoked(self) -> None:
        """Hear that a rebalance has begun."""
        if not self.rebalancing:
            self._revoked = self._clock.monotonic()
        self.rebalancing = True

    def assigned(self) -> None:
        """Hear that there is an assignment."""
        self.rebalancing = False

    @property
    def joined(self) -> bool:
        """Tell whether this is a member that knows its assignment, or did until a moment ago."""
        if not self.rebalancing:
            return True
        return self._revoked is not None and self._clock.monotonic() - self._revoked < self._patience_s


class Polls:
    """When a loop polled last, and whether it lives; its polls may lie `legal_s` apart."""

    def __init__(self, clock: Clock, membership: Membership, legal_s: float) -> None:
        self._clock, self._membership, self._legal_s = clock, membership, legal_s
        self._inside = False
        self._ended = clock.monotonic()

    @contextmanager
    def poll(self) -> Iterator[None]:
        """Mark one poll; one that failed counts, too."""
        self._inside = True
        try:
            yield
        finally:
            self._inside = False
            self._ended = self._clock.monotonic()

    @property
    def alive(self) -> bool:
        """Tell whether the loop polled lately, or waits inside a poll for a rebalance to end."""
        waits = self._inside and self._membership.rebalancing
        return waits or self._clock.monotonic() - self._ended < self._legal_s
