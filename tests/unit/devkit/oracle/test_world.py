"""What an offset was booked as, against the plainest way to say it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flux_devkit.oracle.rows import ExceptionRow, LaneRow, LedgerRow
from flux_devkit.oracle.world import Book

WIDTHS = st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=12)


def a_book(ledger: list[tuple[int, int]], exceptions: list[tuple[int, int]]) -> Book:
    """A lane with these rows: [from, to) and [first, last]."""
    lane = LaneRow("checkpoint", "t", 0, "id", 1, 100, 0, 0)
    rows = [LedgerRow("checkpoint", "t", 0, low, high, high - low, 0, 0, 0, 0, 0) for low, high in ledger]
    excepted = [ExceptionRow("checkpoint", "t", 0, low, high, "fenced", None) for low, high in exceptions]
    return Book(lane, None, tuple(rows), tuple(excepted), ())


def spans(widths: list[tuple[int, bool]]) -> list[tuple[int, int]]:
    """Cut offsets from 0 on into spans and keep some of them: (first, last), both inside."""
    found, at = [], 0
    for width, kept in widths:
        found += [(at, at + width - 1)] if kept else []
        at += width
    return found


@given(WIDTHS, WIDTHS)
def test_an_offset_is_an_effect_unless_an_exception_says_otherwise(
    booked: list[tuple[int, bool]], excepted: list[tuple[int, bool]]
) -> None:
    """I8's rule, with rows that are missing anywhere."""
    rows, exceptions = spans(booked), spans(excepted)
    book = a_book([(low, high + 1) for low, high in rows], exceptions)

    for offset in range(80):
        covered = any(low <= offset <= high for low, high in rows)
        fenced = any(low <= offset <= high for low, high in exceptions)
        assert book.fate(offset) == (("fenced" if fenced else "effect") if covered else None)
