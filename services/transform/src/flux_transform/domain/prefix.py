"""Which offsets of a Kafka partition may be committed while items are worked side by side.

Items end in any order, but a committed offset says "everything before me is done". So only the contiguous prefix of
finished offsets is committed: a slow item never loses a fast one, and a crash repeats items, never skips one.
"""

from __future__ import annotations


class ContiguousPrefix:
    """The offsets of one Kafka partition under one assignment: begun, done, and how far the done ones reach."""

    def __init__(self) -> None:
        self._open: dict[int, bool] = {}  # offset -> done, in the order of the log
        self._next: int | None = None

    def begin(self, offset: int) -> None:
        """Take an offset up; offsets come in the order of the log.

        Raises:
            ValueError: the offset is not after every offset begun before.
        """
        newest = next(reversed(self._open), -1 if self._next is None else self._next - 1)
        if offset <= newest:
            raise ValueError(f"offset {offset} does not follow those begun before")
        self._open[offset] = False

    def done(self, offset: int) -> int | None:
        """Mark an offset as finished; return the offset to commit if the prefix grew by it, else None.

        Raises:
            KeyError: the offset is not under way.
        """
        if offset not in self._open:
            raise KeyError(offset)
        self._open[offset] = True
        before = self._next
        while self._open and self._open[next(iter(self._open))]:
            self._next = self._pop_first() + 1
        return self._next if self._next != before else None

    def _pop_first(self) -> int:
        first = next(iter(self._open))
        del self._open[first]
        return first

    @property
    def committable(self) -> int | None:
        """Return the next offset that a consumer would want after the finished prefix; None if nothing is finished."""
        return self._next

    @property
    def pending(self) -> int:
        """Return how many offsets lie beyond the finished prefix (finished ones behind a slow one included)."""
        return len(self._open)
