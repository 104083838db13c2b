"""`make prove-…`: everything that a milestone must show and a command can show, one line an item with its figure.

Each item runs the real thing: a fresh clone in a new folder with no environment left over, the README's commands, and the
suites that carry the proofs. A line says `ok` or `FALLS SHORT`, what was measured, and the bound; the exit status is 0 only
if all hold. On two cores `backbone` takes an hour and a quarter, `trust` a quarter of one, `deployment` forty minutes.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from flux_devkit.finding import Finding, Item, report
from flux_devkit.milestones import backbone, deployment, trust

MILESTONES: Final[dict[str, dict[str, Item]]] = {
    "backbone": backbone.ITEMS,
    "trust": trust.ITEMS,
    "deployment": deployment.ITEMS,
}


def main() -> int:
    """Prove a milestone; 0 if every item holds."""
    parser = argparse.ArgumentParser(prog="make prove-<milestone>", description=__doc__)
    parser.add_argument("milestone", choices=sorted(MILESTONES))
    parser.add_argument("--only", help="run only items whose name contains this")
    arguments = parser.parse_args()
    # A shell's background job ignores Ctrl-C, and so would the programs that it is pressed on here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="flux-prove-") as folder:
        return report(_findings(MILESTONES[arguments.milestone], Path(folder), arguments.only))


def _findings(items: dict[str, Item], folder: Path, only: str | None) -> Iterator[Finding]:
    for name, item in items.items():
        if only is None or only in name:
            yield from item(folder)


if __name__ == "__main__":
    sys.exit(main())
