"""What the oracle says: violations, each under the invariant it breaks, and figures that show what was looked at.

An empty report is only worth as much as its figures: a check that had nothing to look at says 0 there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

SHOWN: Final = 25
# I1 to I9 are docs/semantics.md's. OUTBOX and SETTLED hold only where the caller says that all work is done.
INVARIANTS: Final[dict[str, str]] = {
    "I1": "a lane moves only with its effects",
    "I2": "one owner epoch commits on a lane at a time",
    "I3": "slices are gap-free and the chain links",
    "I4": "no run without a verified token and one accepted request",
    "I5": "every row, fact and event is of the agency that it names",
    "I6": "one terminal event a run attempt, no event twice, and what is final stays",
    "I7": "the audit log is gap-free, each fact sealed once, and its heads and receipts verify",
    "I8": "the ledger accounts for every offset",
    "I9": "what is complete has read its plan, and counts add up",
    "OUTBOX": "everything decided has been published",
    "SETTLED": "everything that was asked has been answered",
}


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """One thing that is not as it must be: which invariant, what was found, and the ids to follow."""

    invariant: str
    what: str
    ids: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}" + (f" [{', '.join(self.ids)}]" if self.ids else "")


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was found, in order, and how much was looked at."""

    violations: tuple[Violation, ...]
    figures: Mapping[str, int] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Tell whether nothing is violated."""
        return not self.violations

    @property
    def broken(self) -> frozenset[str]:
        """Return the invariants that are violated."""
        return frozenset(violation.invariant for violation in self.violations)

    def assert_clean(self) -> None:
        """Raise AssertionError with the whole text unless nothing is violated."""
        if not self.clean:
            raise AssertionError(f"the oracle objects\n{self.text()}")

    def text(self) -> str:
        """Return the report for people: figures, one line for each invariant, then what is wrong, some of each kind."""
        found = Counter(violation.invariant for violation in self.violations)
        lines = [f"{name:>28}  {number}" for name, number in self.figures.items()]
        lines += [
            f"{'FAILED' if found[name] else 'ok':>6}  {name:<7} {meaning}" + (f": {found[name]}" if found[name] else "")
            for name, meaning in INVARIANTS.items()
        ]
        for name in found:
            of_one = [violation for violation in self.violations if violation.invariant == name]
            lines += [f"  {violation}" for violation in of_one[:SHOWN]]
            lines += [f"  … and {len(of_one) - SHOWN} more of {name}"] if len(of_one) > SHOWN else []
        return "\n".join(lines)
