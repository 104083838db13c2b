"""`python -m flux_ingest serve | migrate | check-settings`."""

from __future__ import annotations

import sys

from flux_common.observability.logging import get_logger
from flux_common.postgres.migrations import migrate
from flux_common.runtime.cli import Migration, Program, main
from flux_common.settings import read_secret
from flux_ingest.settings import IngestSettings, MigrationSettings
from flux_ingest.wiring import build

log = get_logger(__name__)


async def run_migrations(settings: MigrationSettings) -> None:
    """Bring the database up to date as `flux_migrate`."""
    secret = settings.postgres.password_file
    password = read_secret(secret).get_secret_value() if secret is not None else None
    applied = await migrate(settings.postgres.dsn, password=password)
    log.info("migrated", applied=applied)


PROGRAM = Program(
    name="ingest",
    about="Flux ingest: proves who asks, judges what is asked, and decides once.",
    settings=IngestSettings,
    build=build,
    migration=Migration(MigrationSettings, run_migrations),
)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
