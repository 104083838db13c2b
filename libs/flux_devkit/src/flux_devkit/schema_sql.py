"""`schema.sql` and `declared.json`: where the migrations lead, written down. `make schema-sql` writes both; tests hold them.

Theory. The migrations are the truth of how; this file is the truth of what, to be read by people and compared by a test.
It is PostgreSQL's own dump of a database that was just migrated, without what differs from one dump to the next, and with
the few rows that a new installation has. Run as `flux_owner` on an empty database with Flux's roles, it makes the same
database as the migrations do, and `migrate` goes on from there. `declared.json` is what the same database's catalogues say,
roles included, for `flux-etl doctor` to compare a live one with (flux_common.postgres.catalogue).
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import asyncpg

from flux_common.postgres import migrations as room
from flux_common.postgres.catalogue import DECLARED, Declaration, look, things_in
from flux_common.postgres.catalogue import written as declared_text
from flux_common.postgres.migrations import Migration, create_roles, migrate, migrations
from flux_common.postgres.queries import Queries
from flux_devkit.postgres import EmbeddedPostgres, PostgresOptions, create_database, find_programs

SCHEMA_SQL = Path(room.__file__).with_name("schema.sql")
_SQL = Queries.load("flux_devkit", "schema_sql.sql")
_NOISE = re.compile(r"\\|--|SET |SELECT pg_catalog\.set_config")
# Tables whose rows are part of an installation: one lease for each shard.
SEEDED = ("flux_ingest.relay_leases", "flux_checkpoint.relay_leases", "flux_audit.relay_leases",
          "flux_checkpoint.dispatcher_leases")  # fmt: skip


def main() -> None:
    """Write the files."""
    with tempfile.TemporaryDirectory(prefix="flux-schema-") as folder:
        server = EmbeddedPostgres(Path(folder) / "postgres", PostgresOptions(fsync=False))
        try:
            server.start()
            dsn = migrated(server)
            text, declared = written(dsn), declared_text(asyncio.run(declaration_of(dsn)))
        finally:
            server.remove()
    SCHEMA_SQL.write_text(text)
    SCHEMA_SQL.with_name(DECLARED).write_text(declared)
    sys.stdout.write(f"{SCHEMA_SQL.name}: {len(text.splitlines())} lines, {len(migrations())} migrations\n")


def migrated(server: EmbeddedPostgres) -> str:
    """Make a new database on `server`, with all roles; return the superuser's DSN for it."""
    password = secrets.token_urlsafe(18)
    dsn = create_database(server.dsn, f"schema_{secrets.token_hex(4)}", "template1")
    asyncio.run(create_roles(dsn, {"flux_migrate": password}, agencies=["any"]))
    asyncio.run(migrate(re.sub(r"//[^@]+@", "//flux_migrate@", dsn), password=password))
    return dsn


def written(dsn: str) -> str:
    """Return the text of `schema.sql`, from a new database."""
    schema = dumped(dsn, "--schema-only", "--exclude-schema=public", "--exclude-schema=pg_catalog")
    rows = dumped(dsn, "--data-only", "--column-inserts", *(f"--table={table}" for table in SEEDED))
    return "\n".join([_SQL["header"], *tidied(schema), "", *tidied(rows), "", *known(migrations()), ""])


async def declaration_of(dsn: str) -> Declaration:
    """Return what the catalogues of a new database say."""
    connection = await asyncpg.connect(dsn)
    try:
        return Declaration(connection.get_server_version().major, things_in(await look(connection)))
    finally:
        await connection.close()


def dumped(dsn: str, *options: str) -> str:
    """Return what pg_dump says of a database."""
    program = find_programs() / "bin" / "pg_dump"
    command = [str(program), "--no-owner", "--no-tablespaces", "--no-security-labels", *options, dsn]
    # The caller's PG* variables would change what is dumped, or from where.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=kept).stdout


def tidied(dump: str) -> Iterator[str]:
    """Yield a dump's statements without session settings, psql's own commands and the comments that name objects."""
    gap = False
    for line in dump.splitlines():
        if _NOISE.match(line):
            continue
        if line.strip():
            if gap:
                yield ""
            yield line
        gap = not line.strip()


def known(applied: Sequence[Migration]) -> Iterator[str]:
    """Yield the rows that say which migrations this is the result of."""
    return (_SQL["migration"].format(migration) for migration in applied)


if __name__ == "__main__":
    main()
