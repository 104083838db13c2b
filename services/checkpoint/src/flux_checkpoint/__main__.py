"""`python -m flux_checkpoint serve | check-settings | roles | migrate | topics`.

The jobs of an installation are offered here, because checkpoint is the service that is there in every installation and
knows both PostgreSQL and the topics; they are not checkpoint's alone.
"""

from __future__ import annotations

import sys

from flux_checkpoint.settings import CheckpointSettings
from flux_checkpoint.wiring import build
from flux_common.runtime.cli import Program, main
from flux_common.runtime.jobs import MIGRATE, ROLES, TOPICS

PROGRAM = Program(
    name="checkpoint",
    about="Flux checkpoint: remembers progress, dispatches work, completes runs.",
    settings=CheckpointSettings,
    build=build,
    jobs=(ROLES, MIGRATE, TOPICS),
)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
