"""`python -m flux_checkpoint serve | check-settings`."""

from __future__ import annotations

import sys

from flux_checkpoint.settings import CheckpointSettings
from flux_checkpoint.wiring import build
from flux_common.runtime.cli import Program, main

PROGRAM = Program(
    name="checkpoint",
    about="Flux checkpoint: remembers progress, dispatches work, completes runs.",
    settings=CheckpointSettings,
    build=build,
)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
