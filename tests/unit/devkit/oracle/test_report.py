"""The verdict: clean only without violations, and readable with many."""

from __future__ import annotations

import pytest

from flux_devkit.oracle import INVARIANTS, Report, Violation
from flux_devkit.oracle.report import SHOWN


def test_a_report_without_violations_is_clean() -> None:
    """It asserts nothing, and its text says ok for each invariant."""
    report = Report((), {"records": 3})
    report.assert_clean()

    assert report.text().count("    ok  ") == len(INVARIANTS)


def test_a_violation_is_raised_with_its_ids() -> None:
    """Whoever reads the failure knows what to look for."""
    report = Report((Violation("I3", "a link is missing", ("run/extract/0#2",)),))

    with pytest.raises(AssertionError, match=r"I3: a link is missing \[run/extract/0#2\]"):
        report.assert_clean()
    assert report.broken == {"I3"}


def test_many_violations_of_one_kind_are_counted_not_listed() -> None:
    """A thousand lost rows are one fault, and do not hide the others."""
    many = [Violation("I1", f"row {number} is lost") for number in range(1000)]
    text = Report((*many, Violation("I7", "a root is another"))).text()

    assert f"… and {1000 - SHOWN} more of I1" in text
    assert "I7: a root is another" in text
