"""The one way to a connection.

What must hold: a transaction sees the rows of the agencies it was opened for and no others; nothing of them stays on the
connection. The agencies are set inside the transaction (`set_config(…, true)`), after asserting that none were set; a
cancelled or broken transaction's connection is terminated, never returned to the pool. Services reach PostgreSQL over
TCP only: over a Unix socket a stopped client blocks its successor whatever the time-outs (semantics.md, Lanes).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import FluxError, InvariantBroken
from flux_common.postgres.queries import Queries
from flux_common.postgres.sqlstates import translated
from flux_common.settings import PostgresSettings

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
else:
    Connection = asyncpg.Connection

_SQL = Queries.load("flux_common.postgres", "database.sql")
# Minor releases that carry fixes of row-level security (trust.md).
VERSION_FLOOR = {15: 150020, 16: 160016, 17: 170012, 18: 180006}


class Database:
    """A pool of connections of one role, handed out only inside a transaction with its agencies set."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool

    @classmethod
    async def open(cls, settings: PostgresSettings, application_name: str) -> Database:
        """Open the pool and check the server's release.

        Raises:
            Unavailable: PostgreSQL does not answer.
            FluxError: the server lacks fixes of row-level security.
        """
        with translated():
            pool = await asyncpg.create_pool(
                **settings.asyncpg_options(application_name),
                min_size=settings.pool_min,
                max_size=settings.pool_max,
                # The server ends a statement first; this one is for a server that does not answer at all.
                command_timeout=settings.statement_timeout_ms / 1000 + 5,
            )
        database = cls(pool)
        try:
            await database._refuse_old_server(settings.accept_old_server)
        except BaseException:
            pool.terminate()
            raise
        return database

    async def _refuse_old_server(self, accept: bool) -> None:
        async with self.transaction() as connection:
            version = await connection.fetchval(_SQL["server_version"])
        floor = VERSION_FLOOR.get(version // 10000, min(VERSION_FLOOR.values()))
        if version < floor and not accept:
            raise FluxError(
                Code.SETTINGS_INVALID,
                f"PostgreSQL {version} lacks fixes of row-level security; upgrade to {floor} or newer",
            )

    async def close(self, *, grace: float = 5.0) -> None:
        """Close the pool, waiting at most `grace` seconds for connections in use."""
        try:
            await asyncio.wait_for(self._pool.close(), grace)
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def transaction(self, agencies: Collection[str] = (), *, reader: bool = False) -> AsyncIterator[Connection]:
        """Yield a connection inside a transaction that sees `agencies` (of a reader: exactly one) and no others.

        Raises:
            Unavailable, Contended, RecordRefused, IsolationViolation: as `sqlstates` translates them.
            InvariantBroken: the connection came with an agency already set.
        """
        with translated():
            connection = await self._pool.acquire(timeout=10)
            try:
                async with connection.transaction():
                    await _set_agencies(connection, agencies, reader)
                    yield connection
            except BaseException as problem:
                if not isinstance(problem, (asyncpg.PostgresError, FluxError)) or isinstance(problem, InvariantBroken):
                    # Cancelled or broken: whether it committed is settled by who asks next, not by this connection.
                    connection.terminate()
                raise
            finally:
                await asyncio.shield(self._pool.release(connection, timeout=5))

    async def ping(self) -> None:
        """Make one round trip; raises Unavailable."""
        async with self.transaction() as connection:
            await connection.fetchval(_SQL["server_version"])


async def _set_agencies(connection: Any, agencies: Collection[str], reader: bool) -> None:
    if not await connection.fetchval(_SQL["tenant_unset"]):
        raise InvariantBroken(Code.ISOLATION_VIOLATION, "A connection came with an agency already set")
    if reader and len(agencies) == 1:
        await connection.fetchval(_SQL["set_reader_tenant"], next(iter(agencies)))
    elif agencies:
        await connection.fetchval(_SQL["set_tenants"], ",".join(sorted(agencies)))
