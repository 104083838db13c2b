"""What the proof of a flood says: the median turns are bounded, and the turns that they leave out are said."""

from __future__ import annotations

from flux_devkit.finding import Finding
from flux_devkit.proofs.flood import Measured, beside

CALM = [Measured([10.0] * 50)] * 3


def test_a_bad_turn_is_not_hidden_by_the_median() -> None:
    """It does not break the bound, which is on the median, but everybody reads it."""
    found = beside("a neighbour", CALM, [*CALM[:2], Measured([10.0] * 40 + [70.0] * 10)])

    assert found.holds
    assert "1.00 times, p99 of the median turn 10 ms calm and 10 ms flooded" in found.measured
    assert "of all turns together 7.00 times, 10 and 70 ms; of the worst 10 and 70 ms" in found.measured
    assert Finding.of_line(found.line()) == found


def test_twice_as_late_falls_short() -> None:
    """The bound is below two."""
    assert not beside("a neighbour", CALM, [Measured([20.0] * 50)] * 3).holds
