"""`python -m flux_common.contracts`: write the published contract below a folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flux_common.contracts.export import ReleasedSchemaChanged, export


def main() -> None:
    """Write the contract, and say which files changed."""
    parser = argparse.ArgumentParser(prog="python -m flux_common.contracts", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="the repository's root (default: here)")
    parser.add_argument("--release", action="store_true", help="freeze the schemas that are not yet released")
    chosen = parser.parse_args()
    try:
        changed = export(chosen.root, release=chosen.release)
    except ReleasedSchemaChanged as problem:
        parser.exit(1, f"{problem}\n")
    sys.stdout.writelines(f"{path}\n" for path in changed)


main()
