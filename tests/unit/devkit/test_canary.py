"""The search for secrets: each slice of 20 characters is found wherever it stands, and nothing shorter is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_devkit.canary import SLICE, slices_in

SECRET = bytes(range(48, 48 + 75))  # no byte twice


@given(
    start=st.integers(0, len(SECRET) - SLICE),
    more=st.integers(0, 30),
    before=st.binary(max_size=40),
    after=st.binary(max_size=40),
)
def test_a_slice_is_found_wherever_it_stands(start: int, more: int, before: bytes, after: bytes) -> None:
    """Whatever is around it."""
    assert list(slices_in(before + SECRET[start : start + SLICE + more] + after, SECRET))


@given(start=st.integers(0, len(SECRET)), length=st.integers(0, SLICE - 1))
def test_what_is_shorter_is_no_slice(start: int, length: int) -> None:
    """19 characters may be a word that both happen to have."""
    assert list(slices_in(b"\0" + SECRET[start : start + length] + b"\0", SECRET)) == []


def test_each_place_is_told_once() -> None:
    """A whole secret is one leak, two copies are two."""
    assert list(slices_in(b"x" + SECRET + b"y", SECRET)) == [0]
    assert list(slices_in(SECRET + b"y" + SECRET[30:60], SECRET)) == [0, 30]


def test_a_secret_that_is_too_short_is_a_mistake() -> None:
    """Nothing could be found of it."""
    with pytest.raises(ValueError, match="20"):
        list(slices_in(b"", b"short"))
