"""`python -m flux_transform serve | check-settings`."""

from __future__ import annotations

import sys

from flux_common.runtime.cli import Program, main
from flux_transform.settings import TransformSettings
from flux_transform.wiring import build

PROGRAM = Program(
    name="transform",
    about="Flux transform: works the partitions of a source archive into a dataset.",
    settings=TransformSettings,
    build=build,
)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
