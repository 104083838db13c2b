"""The command `flux-etl`; `app.py` is its root."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit."""
    from flux_client.cli.app import run

    sys.exit(run())
