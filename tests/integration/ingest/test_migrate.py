"""`python -m flux_ingest migrate` brings a database to the schema of this release, and may be run again."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from flux_common.postgres.database import Database
from flux_common.postgres.migrations import create_roles, require_schema
from flux_common.settings import PostgresSettings
from flux_devkit.plugin import PostgresServer


async def test_migrate_from_nothing_and_again(
    postgres_server: PostgresServer, password_file: Path, settings_for: Callable[[str], PostgresSettings]
) -> None:
    """An empty database gets the whole schema; the second run changes nothing; the service then accepts it."""
    empty = postgres_server.create_database("ingest_migrate")
    try:
        await create_roles(empty.dsn, {})
        base = settings_for("flux_migrate").dsn.rpartition("/")[0]
        env = {name: value for name, value in os.environ.items() if not name.startswith("FLUX_")} | {
            "FLUX_POSTGRES_DSN": f"{base}/ingest_migrate",
            "FLUX_POSTGRES_PASSWORD_FILE": str(password_file),
        }
        codes = []
        for _ in range(2):
            process = await asyncio.create_subprocess_exec(sys.executable, "-m", "flux_ingest", "migrate", env=env)
            codes.append(await process.wait())
        ingest = settings_for("flux_ingest")
        database = await Database.open(
            ingest.model_copy(update={"dsn": f"{ingest.dsn.rpartition('/')[0]}/ingest_migrate"}), "test"
        )
        await require_schema(database)
        await database.close()
    finally:
        postgres_server.drop_database("ingest_migrate")

    assert codes == [0, 0]
