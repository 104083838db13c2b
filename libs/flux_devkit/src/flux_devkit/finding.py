"""What one item of a proof showed: a line that says whether it holds, what was measured, and the bound."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LINE: Final = re.compile(r"(ok|FALLS SHORT) +(.+?): (.+) \(bound: (.+)\)")


@dataclass(frozen=True)
class Finding:
    """What one item showed."""

    item: str
    holds: bool
    measured: str
    bound: str

    def line(self) -> str:
        """Return the item's line."""
        return f"{'ok' if self.holds else 'FALLS SHORT':<12} {self.item}: {self.measured} (bound: {self.bound})"

    @classmethod
    def of_line(cls, line: str) -> Finding | None:
        """Return the finding that a line says; None if it says none."""
        said = _LINE.fullmatch(line.strip())
        return None if said is None else cls(said[2], said[1] == "ok", said[3], said[4])


Item = Callable[[Path], Iterator[Finding]]


def print_line(text: str) -> None:
    """Say one line at once, also into a pipe."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def report(findings: Iterable[Finding]) -> int:
    """Print the line of each finding as it comes, and how many hold; return the exit status: 0 if all do."""
    seen = []
    for finding in findings:
        print_line(finding.line())
        seen.append(finding)
    short = sum(not finding.holds for finding in seen)
    print_line(f"{len(seen) - short} of {len(seen)} items hold")
    return 1 if short or not seen else 0
