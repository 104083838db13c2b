"""The oracle on an installation at rest: it finds no fault there, and it has looked at everything that there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flux_devkit.oracle import INVARIANTS

if TYPE_CHECKING:
    from conftest import Rest


def test_it_finds_no_fault_with_an_installation_at_rest(rest: Rest) -> None:
    """What four services made of honest and hostile records alike keeps every invariant."""
    report = rest.judge(rest.world)

    assert report.violations == (), report.text()


def test_it_has_looked_at_every_kind_of_thing(rest: Rest) -> None:
    """No check was clean because there was nothing to look at."""
    figures = rest.judge(rest.world).figures

    kinds = (
        "effects",
        "duplicates",
        "fenced",
        "dead letters",
        "controls",
        "requests rejected",
        "requests flooded",
        "receipts",
        "leaves",
    )
    assert [kind for kind in kinds if figures[kind] == 0] == []
    assert (figures["runs COMPLETED"], figures["runs FAILED"], figures["runs CANCELLED"]) == (1, 1, 1)
    assert figures["slices"] >= 4


def test_the_text_says_what_was_asserted_and_found(rest: Rest) -> None:
    """A line for each invariant, and each violation with its ids."""
    text = rest.judge(rest.world).text()

    assert [name for name in INVARIANTS if f"  {name} " not in text] == []
