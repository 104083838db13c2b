"""The one way to a connection.

What must hold: a transaction sees the rows of the agencies it was opened for and no others; nothing of them stays on the
connection. The agencies are set inside the transaction (`set_config(…, true)`), after asserting that none were set; a
cancelled or broken transaction's connection is terminated, never returned to the pool. Services reach PostgreSQL over
TCP only: over a Unix socket a stopped client blocks its successor whatever the time-outs (docs/semantics.md, Lanes).

| the block ends by | the connection | who called sees |
|---|---|---|
| its end, COMMIT answered | goes back | nothing |
| its end, COMMIT answered with ROLLBACK | goes back | `InvariantBroken`: an error was swallowed inside |
| its end, COMMIT not answered | is terminated | `Unavailable`: whether it committed is for a Take to find out |
| an answer of the server, a decision of ours | is rolled back, goes back | as `sqlstates` translates it |
| anything else, cancellation first of all | is terminated | just that |

Transactions are begun and ended here and not by the driver's own block, which hides COMMIT's answer and, once the
connection is lost, puts its complaint in the place of whatever the block raised, a cancellation included.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Classification, FluxError, InvariantBroken, Overloaded
from flux_common.observability import metrics
from flux_common.observability.logging import get_logger
from flux_common.postgres.queries import Queries
from flux_common.postgres.sqlstates import connecting, logging_in, translated
from flux_common.settings import PostgresSettings

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
else:
    Connection = asyncpg.Connection

log = get_logger(__name__)

_SQL = Queries.load("flux_common.postgres", "database.sql")
# Minor releases that carry fixes of row-level security (docs/trust.md).
VERSION_FLOOR = {15: 150020, 16: 160016, 17: 170012, 18: 180006}
ACQUIRE_SECONDS = 10.0
RELEASE_SECONDS = 5.0
# The list is one text with commas between: a name that held one would be two agencies.
_AGENCY: Final = re.compile(r"(_system|[a-z0-9][a-z0-9-]{1,62})")
# What a connection that was lost, or cut off by us, may raise when it is tidied up.
_TIDYING: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


class Database:
    """A pool of connections of one role, handed out only inside a transaction with its agencies set."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool
        self._releasing: set[asyncio.Future[None]] = set()

    @classmethod
    async def open(cls, settings: PostgresSettings, application_name: str, *, starting: bool = False) -> Database:
        """Open the pool and check the server's release.

        `starting`: the process can wait for an operator, so a login that is refused is an outage, too.

        Raises:
            Unavailable: PostgreSQL does not answer.
            FluxError: the server lacks fixes of row-level security.
        """
        with logging_in() if starting else connecting():
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
            fault = release_fault(await connection.fetchval(_SQL["server_version"]))
        if fault and accept:
            log.warning("an old server was accepted", fault=fault)
        elif fault:
            raise FluxError(Code.SETTINGS_INVALID, f"{fault}, or accept it with FLUX_POSTGRES_ACCEPT_OLD_SERVER=true")

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
            Overloaded: every connection is in use, and stayed so for ten seconds.
            InvariantBroken: the connection came with an agency already set, a name is no agency's, or an error of a
                statement was swallowed in the block, so that COMMIT kept nothing.
        """
        statement, tenant = _tenancy(agencies, reader)
        connection = await self._acquired()
        lost = False
        try:
            with translated(lambda: lost):
                try:
                    await connection.execute(_SQL["begin"])
                    await _enter(connection, statement, tenant)
                    yield connection
                    await _commit(connection)
                except BaseException as problem:
                    lost = _is_gone(connection)
                    await _undo(connection, problem)
                    raise
        finally:
            await self._give_back(connection)

    async def ping(self) -> None:
        """Make one round trip; raises Unavailable."""
        async with self.transaction() as connection:
            await connection.fetchval(_SQL["server_version"])
        metrics.pool_connections.labels("idle").set(self._pool.get_idle_size())
        metrics.pool_connections.labels("in use").set(self._in_use())

    async def _acquired(self) -> PoolConnectionProxy[asyncpg.Record]:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with connecting():
            try:
                return await self._pool.acquire(timeout=ACQUIRE_SECONDS)
            except TimeoutError as problem:
                if self._in_use() < self._pool.get_max_size():
                    raise
                raise _overloaded() from problem
            finally:
                metrics.pool_wait_seconds.observe(loop.time() - begun)

    async def _give_back(self, connection: PoolConnectionProxy[asyncpg.Record]) -> None:
        """Let the pool have a connection again; the transaction is over, whatever becomes of its connection.

        That goes on by itself when the caller is cancelled: the pool would get nothing back, or complain to nobody.
        """
        task = asyncio.ensure_future(self._pool.release(connection, timeout=RELEASE_SECONDS))
        self._releasing.add(task)
        task.add_done_callback(self._given_back)
        with suppress(*_TIDYING):
            await asyncio.shield(task)

    def _given_back(self, task: asyncio.Future[None]) -> None:
        self._releasing.discard(task)
        if not task.cancelled():
            task.exception()

    def _in_use(self) -> int:
        return self._pool.get_size() - self._pool.get_idle_size()


def _overloaded() -> Overloaded:
    return Overloaded(
        Code.DATABASE_UNAVAILABLE,
        f"Every connection of the pool stayed in use for {ACQUIRE_SECONDS:g} s",
        classification=Classification.STORAGE,
    )


def release_fault(version: int) -> str | None:
    """Say what is wrong with a server of this `server_version_num`; None if it has the fixes of row-level security."""
    floor = VERSION_FLOOR.get(version // 10000, min(VERSION_FLOOR.values()))
    if version >= floor:
        return None
    needed = release_of(floor)
    return f"PostgreSQL {release_of(version)} lacks fixes of row-level security; upgrade to {needed} or newer"


def release_of(version: int) -> str:
    """Return a `server_version_num` as people write it."""
    return f"{version // 10000}.{version % 10000}"


def _tenancy(agencies: Collection[str], reader: bool) -> tuple[str, str | None]:
    """Return the statement that lets a transaction see `agencies`, and its argument."""
    if isinstance(agencies, str) or not all(_AGENCY.fullmatch(agency) for agency in agencies):
        raise InvariantBroken(Code.ISOLATION_VIOLATION, "What a transaction shall see is not a list of agency ids")
    if reader:
        if len(agencies) != 1:
            raise ValueError("a reader's transaction is opened for one agency")
        return "set_reader_tenant", next(iter(agencies))
    return ("set_tenants", ",".join(sorted(agencies))) if agencies else ("tenant_unset", None)


async def _enter(connection: Any, statement: str, tenant: str | None) -> None:
    if not await connection.fetchval(_SQL[statement], *([] if tenant is None else [tenant])):
        raise InvariantBroken(Code.ISOLATION_VIOLATION, "A connection came with an agency already set")


async def _commit(connection: Any) -> None:
    if await connection.execute(_SQL["commit"]) != "COMMIT":
        raise InvariantBroken(Code.INVARIANT_BROKEN, "An error was swallowed inside a transaction: nothing was kept")


async def _undo(connection: Any, problem: BaseException) -> None:
    """Roll back after an answer of the server or a decision of ours; cut off whatever else is left."""
    decided = isinstance(problem, FluxError) and not isinstance(problem, InvariantBroken)
    if decided or isinstance(problem, asyncpg.PostgresError):
        try:
            await connection.execute(_SQL["rollback"])
            return
        except _TIDYING:
            pass
        except BaseException:
            _terminate(connection)
            raise
    _terminate(connection)


def _terminate(connection: Any) -> None:
    with suppress(asyncpg.InterfaceError):  # the pool took it back already when the server hung up
        connection.terminate()


def _is_gone(connection: Any) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:  # as above
        return True
