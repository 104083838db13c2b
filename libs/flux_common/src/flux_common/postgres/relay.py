"""The outbox relay: exactly once to read_committed readers.

Theory. A row is published in one Kafka transaction together with the new cursor of its shard, so the cursor topic alone says
what has been published; the database says what there is. A relay is the holder of its shard's lease; the fixed
`transactional_id` fences its predecessor in Kafka, the lease's term fences it in PostgreSQL.

| state | on | next |
|---|---|---|
| waiting | lease acquired | opening |
| opening | transport open, cursor read | running; `CURSOR_LOST` or `DATABASE_BEHIND_KAFKA` stops the process |
| running | any error or time-out | waiting: the producer is closed and everything begins anew |
| running | the lease's term is another | waiting |

Numbers are given here, under the lease's row lock, to what is visible: identity values commit out of order, numbers do not.
A row that the broker refuses is parked with its topic's later rows, so that one agency's trouble never stops another's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import structlog

from flux_common.contracts.envelope import Outgoing
from flux_common.kernel.clock import Clock
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Fenced, FluxError, InvariantBroken, Unavailable
from flux_common.postgres.database import Database
from flux_common.postgres.outbox import SQL, outgoing_of

log = structlog.get_logger(__name__)

LEASE_SECONDS = 6.0  # a killed relay's successor waits as long; renewed several times a second
ROWS_MAX = 1000
BYTES_MAX = 2**20
POLL_SECONDS = 0.25
RENEW_SECONDS = 2.0


class PublishRefused(FluxError):
    """The broker refuses one event (topic missing or forbidden, too large): park it and go on."""

    def __init__(self, index: int, code: str, message: str) -> None:
        super().__init__(code, message)
        self.index = index


class RelayTransport(Protocol):
    """One shard's way into Kafka; implemented by the kafka room."""

    async def open(self) -> int | None:
        """Fence the predecessor and return the shard's last cursor, None where there is none yet."""
        ...

    async def publish(self, events: Sequence[Outgoing], cursor: int) -> None:
        """Publish the events and the cursor in one Kafka transaction."""
        ...

    async def close(self) -> None:
        """Let go of the producer; safe after any failure."""
        ...


class Relay:
    """The relay of one shard."""

    def __init__(
        self,
        database: Database,
        shard: int,
        transport: Callable[[], RelayTransport],
        holder: str,
        wake: asyncio.Event,
        clock: Clock,
    ) -> None:
        self._database = database
        self._shard = shard
        self._transport = transport
        self._holder = holder
        self._wake = wake
        self._clock = clock
        self._renewed = clock.monotonic()
        self._term = 0
        self._cursor = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Publish until `stopping`; a process without the lease waits for it.

        Raises:
            InvariantBroken: the cursor and the database contradict each other; see the runbook.
        """
        while not stopping.is_set():
            try:
                await self._hold(stopping)
            except (Unavailable, Fenced) as problem:
                log.warning("relay begins anew", shard=self._shard, code=problem.code, error=problem.message)
                await _pause(stopping, 1.0)

    async def _hold(self, stopping: asyncio.Event) -> None:
        if not await self._acquire():
            await _pause(stopping, 1.0)
            return
        transport = self._transport()
        try:
            await self._begin(transport)
            while not stopping.is_set():
                if not await self._round(transport):
                    await self._rest()
        finally:
            with suppress(Unavailable):
                await transport.close()
            await self._release()

    async def _acquire(self) -> bool:
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(SQL["acquire_lease"], self._shard, self._holder, LEASE_SECONDS)
        if row is not None:
            self._term = row["term"]
        return row is not None

    async def _release(self) -> None:
        with suppress(Unavailable):
            async with self._database.transaction() as connection:
                await connection.execute(SQL["release_lease"], self._shard, self._term)

    async def _begin(self, transport: RelayTransport) -> None:
        found = await transport.open()
        async with self._database.transaction() as connection:
            lease = await self._lock(connection)
            self._cursor = found if found is not None else 0
            if self._cursor < lease["last_cursor"]:
                raise InvariantBroken(Code.CURSOR_LOST, "The relay's cursor topic is behind the database")
            if self._cursor > lease["relay_counter"]:
                raise InvariantBroken(Code.DATABASE_BEHIND_KAFKA, "The relay published rows that are not in the outbox")
            await self._clear(connection)

    async def _round(self, transport: RelayTransport) -> bool:
        """Number, publish and delete one batch; tell whether there was anything to do.

        An empty outbox costs a read; the lease is renewed by what is written, or now and then.
        """
        if not await self._anything() and self._clock.monotonic() - self._renewed < RENEW_SECONDS:
            return False
        rows = await self._number()
        if not rows:
            return False
        try:
            await transport.publish([outgoing_of(row) for row in rows], rows[-1]["number"])
        except PublishRefused as refused:
            await self._park(rows[refused.index], refused.code)
            raise Unavailable(Code.BROKER_UNAVAILABLE, "A refused event was parked") from refused
        self._cursor = rows[-1]["number"]
        async with self._database.transaction() as connection:
            await self._lock(connection)
            await self._clear(connection)
        return True

    async def _anything(self) -> bool:
        async with self._database.transaction() as connection:
            return bool(await connection.fetchval(SQL["anything"], self._shard))

    async def _number(self) -> list[Any]:
        async with self._database.transaction() as connection:
            await self._lock(connection)
            await connection.execute(SQL["park_followers"], self._shard)
            highest = await connection.fetchval(SQL["number"], self._shard, ROWS_MAX)
            if highest is not None:
                await connection.execute(SQL["move_counter"], self._shard, self._term, highest)
            rows = await connection.fetch(SQL["unpublished"], self._shard, self._cursor, ROWS_MAX)
        return _within(rows, BYTES_MAX)

    async def _lock(self, connection: Any) -> Any:
        lease = await connection.fetchrow(SQL["lock_lease"], self._shard, self._term, LEASE_SECONDS)
        if lease is None:
            raise Fenced(Code.LEASE_LOST, f"The relay of shard {self._shard} has a newer holder")
        self._renewed = self._clock.monotonic()
        return lease

    async def _clear(self, connection: Any) -> None:
        await connection.fetchval(SQL["clear"], self._shard, self._cursor)
        await connection.execute(SQL["move_cursor"], self._shard, self._term, self._cursor)

    async def _park(self, row: Any, code: str) -> None:
        log.error("outbox row parked", shard=self._shard, topic=row["topic"], agency_id=row["agency_id"], code=code)
        async with self._database.transaction() as connection:
            await self._lock(connection)
            await connection.execute(SQL["park"], self._shard, row["id"], code)
            await connection.execute(SQL["park_numbered_followers"], self._shard, row["topic"], row["number"])

    async def _rest(self) -> None:
        """Wait for a commit of this process, or for the poll that finds those of others."""
        self._wake.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), POLL_SECONDS)


def _within(rows: Sequence[Any], bytes_max: int) -> list[Any]:
    taken: list[Any] = []
    size = 0
    for row in rows:
        size += len(row["value"])
        if taken and size > bytes_max:
            break
        taken.append(row)
    return taken


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)
