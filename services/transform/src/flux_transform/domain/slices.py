"""How a partition is cut into slices: the unit of work, of progress and of memory.

The cut depends on the plan, the cursor and the limits alone. It is greedy from the cursor on, so a worker that resumes
at slice n cuts exactly where the one before it would have cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from flux_transform.domain import media
from flux_transform.domain.limits import Limits
from flux_transform.domain.plan import PlannedObject

# A document is about four times the work of an image or a text: 16 of them fill a slice of 64.
_DOCUMENT_WEIGHT: Final = 4
_DOCUMENT_TYPES: Final = frozenset({media.PDF, media.DOCX, media.ODT})


@dataclass(frozen=True, slots=True)
class Slice:
    """Some consecutive objects of one partition. `first` is the index of the first one in the partition's range."""

    seq: int
    first: int
    objects: tuple[PlannedObject, ...]

    @property
    def cursor(self) -> int:
        """Return the index, in the partition's range, of the object after this slice."""
        return self.first + len(self.objects)

    @property
    def bytes(self) -> int:
        """Return the planned size of the slice's objects."""
        return sum(planned.size for planned in self.objects)


def cut(objects: Sequence[PlannedObject], *, cursor: int, next_seq: int, limits: Limits) -> Iterator[Slice]:
    """Yield the slices of a partition's `objects` from `cursor` on, numbered from `next_seq`."""
    first, seq = cursor, next_seq
    while first < len(objects):
        end = _end(objects, first, limits)
        yield Slice(seq, first, tuple(objects[first:end]))
        first, seq = end, seq + 1


def _end(objects: Sequence[PlannedObject], first: int, limits: Limits) -> int:
    """Return the end of the slice that begins at `first`: full by weight, or by bytes, but never empty."""
    weight, size, end = 0, 0, first
    while end < len(objects):
        weight += _DOCUMENT_WEIGHT if objects[end].media_type in _DOCUMENT_TYPES else 1
        size += _fetched_bytes(objects[end], limits)
        if end > first and (weight > limits.slice_objects_max or size > limits.slice_bytes_max):
            break
        end += 1
    return end


def _fetched_bytes(planned: PlannedObject, limits: Limits) -> int:
    """Return what fetching an object takes: nothing if it is rejected for its size before that."""
    return planned.size if planned.size <= limits.object_bytes_max else 0
