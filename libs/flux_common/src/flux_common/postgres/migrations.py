"""Migrations: forward only, `NNNN_pre|post_name.sql`, one transaction each, safe to run twice at once.

*pre* only adds, so that it suits the code that still runs; *post* takes away what that code has stopped reading, so it is
shipped one release after the code that stopped. Both are applied in the order of their numbers. What was applied is remembered
with the digest of its file: a released file is never edited, and none is applied behind a later one. `schema.sql` beside this
module is where the files lead, written down; a test holds the two to each other.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

import asyncpg

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import FluxError, InvariantBroken
from flux_common.kernel.ids import sha256_hex
from flux_common.postgres.database import Database
from flux_common.postgres.queries import Queries
from flux_common.postgres.sqlstates import connecting, translated

_SQL = Queries.load("flux_common.postgres", "migrations.sql")
_ROLES = Queries.load("flux_common.postgres", "roles.sql")
_FILE = re.compile(r"^(\d{4})_(pre|post)_[a-z0-9_]+\.sql$")

READER = "flux_reader"
READER_CONNECTIONS = 4  # of an agency's own reader; all readers' together must fit beside the services' pools
NAME_LENGTH_MAX = 63  # of PostgreSQL's own
LOGIN_ROLES = ("flux_migrate", "flux_ingest", "flux_checkpoint", "flux_audit", READER)


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number, name and text."""

    version: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Return the digest of the file's text."""
        return sha256_hex(self.text.encode())


def migrations(folder: Traversable | None = None) -> list[Migration]:
    """Return all migrations in order; numbers are gap-free from 1.

    Raises:
        InvariantBroken: a number is missing or there twice, or a file's name is not of the form.
    """
    folder = folder or resources.files("flux_common.postgres").joinpath("migrations")
    found = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    for name in found:
        if not _FILE.match(name):
            raise InvariantBroken(Code.INVARIANT_BROKEN, f"{name} is not named NNNN_pre|post_name.sql")
    result = [Migration(int(name[:4]), name, folder.joinpath(name).read_text()) for name in found]
    if [migration.version for migration in result] != list(range(1, len(result) + 1)):
        raise InvariantBroken(Code.INVARIANT_BROKEN, "Migration files are not numbered without gaps")
    return result


def reader_of(agency_id: str) -> str:
    """Return the name of an agency's own reader login (strict mode); ids have no underscore, so no two share one.

    Raises:
        FluxError: the id has more than 51 characters: PostgreSQL would cut the name, and two could share one.
    """
    name = f"{READER}_{agency_id.replace('-', '_')}"
    if len(name) > NAME_LENGTH_MAX:
        raise FluxError(
            Code.SETTINGS_INVALID, f"{agency_id} is longer than 51 characters: its reader can have no login"
        )
    return name


async def create_roles(
    admin_dsn: str,
    passwords: dict[str, str],
    *,
    agencies: Collection[str] = (),
    strict: bool | None = None,
    reader_connections: int = READER_CONNECTIONS,
) -> list[str]:
    """Create the cluster's roles and open the database to them; an administrator's act, safe to run again.

    Returns what PostgreSQL warned of: an administrator who is no superuser may not set everything, and the rest is done.

    Args:
        admin_dsn: a superuser's DSN of the Flux database.
        passwords: the log-in password of each role in `LOGIN_ROLES`, or reader of `agencies`, that shall get one.
        agencies: agencies that get a reader login of their own.
        strict: whether they are the only readers (`flux_reader` cannot log in); None leaves that as it is.
        reader_connections: how many connections at once each agency's own reader may have.

    Raises:
        FluxError: an agency's id is too long to be part of a login's name.
        Unavailable: PostgreSQL does not answer.
    """
    readers = {reader_of(agency) for agency in agencies}
    warnings: list[str] = []
    with connecting():
        connection = await asyncpg.connect(admin_dsn)
    connection.add_log_listener(lambda _, said: warnings.append(said.message) if said.severity == "WARNING" else None)
    with translated(connection.is_closed):
        try:
            async with connection.transaction():
                await connection.execute(_SQL["lock"])
                await connection.execute(_ROLES["create_roles"])
                await connection.execute(_ROLES["name_readers"], sorted(readers), str(reader_connections))
                for act in ("create_readers", "settle_roles", "open_database"):
                    await connection.execute(_ROLES[act])
                if strict is not None:
                    await connection.execute(_ROLES["close_shared_reader" if strict else "open_shared_reader"])
                for role, password in passwords.items():
                    await connection.execute(await connection.fetchval(_ROLES["set_password"], role, password))
        finally:
            await connection.close()
    return warnings


async def migrate(dsn: str, *, password: str | None = None) -> list[str]:
    """Apply what is missing as `flux_migrate`; return the names of the files that were applied.

    Raises:
        InvariantBroken: an applied file differs from the one in this release, or one is missing before later ones.
        Unavailable: PostgreSQL does not answer, or a table stays locked; run it again.
    """
    with connecting():
        connection = await asyncpg.connect(dsn, password=password)
    with translated(connection.is_closed):
        try:
            done: list[str] = []
            for migration in migrations():
                async with connection.transaction():
                    if await _apply(connection, migration):
                        done.append(migration.name)
            return done
        finally:
            await connection.close()


async def _apply(connection: asyncpg.Connection[asyncpg.Record], migration: Migration) -> bool:
    await connection.execute(_SQL["lock"])
    await connection.execute(_SQL["become_owner"])
    await connection.execute(_SQL["prepare"])
    applied = {row["version"]: row["sha256"] for row in await connection.fetch(_SQL["applied"])}
    if migration.version in applied:
        if applied[migration.version] != migration.sha256:
            raise InvariantBroken(Code.INVARIANT_BROKEN, f"{migration.name} was applied with another text")
        return False
    if any(version > migration.version for version in applied):
        raise InvariantBroken(Code.INVARIANT_BROKEN, f"{migration.name} was left out, and later files were applied")
    await connection.execute(migration.text)
    await connection.execute(_SQL["record"], migration.version, migration.name, migration.sha256)
    return True


async def require_schema(database: Database, version: int | None = None) -> None:
    """Refuse a schema older than this release needs.

    Raises:
        FluxError: `SCHEMA_OUTDATED`; run the migrate job.
    """
    needed = version if version is not None else len(migrations())
    async with database.transaction() as connection:
        rows = await connection.fetch(_SQL["applied"]) if await connection.fetchval(_SQL["prepared"]) else []
    have = max((row["version"] for row in rows), default=0)
    if have < needed:
        raise FluxError(Code.SCHEMA_OUTDATED, f"The schema is at {have}, this release needs {needed}: run `migrate`")
