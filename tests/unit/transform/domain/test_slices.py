"""How a partition is cut into slices."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from flux_transform.domain import media
from flux_transform.domain.limits import DEFAULT_LIMITS
from flux_transform.domain.plan import PlannedObject
from flux_transform.domain.slices import Slice, cut

MIB = 2**20


def objects(*sizes: int, media_type: str = "image/jpeg") -> list[PlannedObject]:
    """Return planned objects of these sizes."""
    return [PlannedObject(f"{n:04d}", size, "e", media_type, 0) for n, size in enumerate(sizes)]


def lengths(planned: list[PlannedObject], cursor: int = 0) -> list[int]:
    """Return how many objects each slice has."""
    return [len(piece.objects) for piece in cut(planned, cursor=cursor, next_seq=1, limits=DEFAULT_LIMITS)]


def test_a_slice_has_at_most_64_objects() -> None:
    """150 small objects make slices of 64, 64 and 22."""
    found = lengths(objects(*[1] * 150))

    assert found == [64, 64, 22]


def test_a_slice_has_at_most_64_mib_of_input() -> None:
    """An object larger than that has a slice of its own."""
    found = lengths(objects(30 * MIB, 30 * MIB, 30 * MIB, 100 * MIB, MIB))

    assert found == [2, 1, 1, 1]


def test_a_slice_has_at_most_16_documents() -> None:
    """A PDF weighs as much as four other objects."""
    found = lengths(objects(*[1] * 40, media_type=media.PDF))

    assert found == [16, 16, 8]


def test_an_object_that_is_never_fetched_takes_no_room() -> None:
    """What is rejected for its size before it is fetched does not fill a slice."""
    found = lengths(objects(2**40, 1, 1))

    assert found == [3]


def test_slices_are_numbered_and_say_where_to_go_on() -> None:
    """The cursor is the index of the next object inside the partition's range."""
    planned = objects(1, 1, 1)
    limits = replace(DEFAULT_LIMITS, slice_objects_max=2)

    found = list(cut(planned, cursor=0, next_seq=5, limits=limits))

    assert found == [Slice(5, 0, tuple(planned[:2])), Slice(6, 2, tuple(planned[2:]))]
    assert [piece.cursor for piece in found] == [2, 3]


sizes = st.lists(st.integers(0, 40 * MIB), min_size=1, max_size=300)


@given(sizes, st.data())
def test_who_resumes_cuts_where_the_one_before_would_have_cut(found: list[int], data: st.DataObject) -> None:
    """From the cursor of any slice on, the cut is the same as the cut from the start."""
    planned = objects(*found)
    whole = list(cut(planned, cursor=0, next_seq=1, limits=DEFAULT_LIMITS))
    done = data.draw(st.integers(0, len(whole)))
    cursor = whole[done - 1].cursor if done else 0

    rest = list(cut(planned, cursor=cursor, next_seq=done + 1, limits=DEFAULT_LIMITS))

    assert rest == whole[done:]
    assert [planned for piece in whole for planned in piece.objects] == planned
