"""The outbox relay: exactly once to read_committed readers.

Theory. A row is published in one Kafka transaction together with the new cursor of its shard, so the cursor topic alone says
what has been published; the database says what there is. A relay is the holder of its shard's lease; the fixed
`transactional_id` fences its predecessor in Kafka, the lease's term fences it in PostgreSQL.

| state | on | next |
|---|---|---|
| waiting | lease acquired | opening |
| opening | transport open, cursor read | running; `CURSOR_LOST` or `DATABASE_BEHIND_KAFKA` stops the process |
| running | a row is refused | opening: the row and those behind it on its topic are parked |
| running | any error or time-out | waiting: the producer is closed and everything begins anew |
| any | the lease's term is another | waiting |

Numbers are given here, under the lease's row lock, to what is visible: identity values commit out of order, numbers do not.
A row that the broker refuses is parked with its topic's later rows, so that one agency's trouble never stops another's.
The lease is renewed while Kafka is waited for: a slow broker must not let two processes fence each other for ever. That is
for liveness alone; a holder that stood still beyond its lease is fenced in both places whatever it believes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import structlog

from flux_common.contracts.envelope import Outgoing
from flux_common.kernel.clock import Clock
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Fenced, FluxError, InvariantBroken, Unavailable
from flux_common.kernel.signals import pause
from flux_common.observability import metrics
from flux_common.postgres.database import Database
from flux_common.postgres.outbox import PIECE_ROWS, SQL, outgoing_of

T = TypeVar("T")
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
        self._renewed = float("-inf")
        self._term = 0
        self._cursor = 0
        self._cleared = 0  # the cursor up to which the database knows what is published

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
                self._count("failed")
                await pause(stopping, 1.0)

    async def _hold(self, stopping: asyncio.Event) -> None:
        if not await self._acquire():
            await pause(stopping, 1.0)
            return
        leader = metrics.relay_leader.labels(str(self._shard))
        leader.set(1)
        try:
            while not stopping.is_set():
                await self._relay(self._transport(), stopping)
        finally:
            leader.set(0)
            await self._release()

    async def _relay(self, transport: RelayTransport, stopping: asyncio.Event) -> None:
        """Publish through one transport; returns when a row was parked, for then it must be opened again."""
        try:
            await self._begin(transport)
            woken = False
            while not stopping.is_set():
                self._wake.clear()  # before looking: a commit from here on is seen or wakes
                published = await self._round(transport, look=not woken)
                woken = not published and await self._rest()
            await self._settle()
        except PublishRefused as refused:
            log.error("an event was refused", shard=self._shard, code=refused.code, error=refused.message)
            self._count("refused")
        finally:
            with suppress(Unavailable):
                await transport.close()

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
        found = await self._held(transport.open())
        async with self._database.transaction() as connection:
            lease = await self._lock(connection)
            self._cursor = found if found is not None else 0
            if self._cursor < lease["last_cursor"]:
                raise InvariantBroken(Code.CURSOR_LOST, "The relay's cursor topic is behind the database")
            if self._cursor > lease["relay_counter"]:
                raise InvariantBroken(Code.DATABASE_BEHIND_KAFKA, "The relay published rows that are not in the outbox")
            await self._clear(connection)

    async def _round(self, transport: RelayTransport, *, look: bool) -> bool:
        """Number, publish and delete one batch; tell whether there was anything to do.

        An empty outbox costs a read, and nobody who was woken looks first; the lease is renewed by what is written, or now
        and then.
        """
        if look and await self._idle():
            return False
        rows = await self._number()
        if not rows:
            return False
        try:
            await self._held(transport.publish([outgoing_of(row) for row in rows], rows[-1]["number"]))
        except PublishRefused as refused:
            if refused.index >= len(rows):  # the cursor itself: no row is to blame, and none must move
                raise Unavailable(refused.code, f"The relay's cursor was refused: {refused.message}") from refused
            await self._park(rows[refused.index], refused.code)
            raise
        self._cursor = rows[-1]["number"]
        self._count("committed", len(rows))
        return True

    async def _idle(self) -> bool:
        """Tell whether a transaction would find nothing to do: no rows, none to delete, no lease to renew."""
        if self._cleared < self._cursor or self._clock.monotonic() - self._renewed >= RENEW_SECONDS:
            return False
        return not await self._anything()

    async def _settle(self) -> None:
        """Delete what was published last, at the end of a life that goes on nowhere else."""
        if self._cleared < self._cursor:
            async with self._database.transaction() as connection:
                await self._lock(connection)
                await self._clear(connection)

    async def _held(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work with Kafka, however long it takes, while the lease is renewed; raises Fenced once it is another's."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({task}, timeout=RENEW_SECONDS))[0]:
                with suppress(Unavailable):  # the work does not need PostgreSQL; what follows it does
                    async with self._database.transaction() as connection:
                        await self._lock(connection)
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _anything(self) -> bool:
        async with self._database.transaction() as connection:
            return bool(await connection.fetchval(SQL["anything"], self._shard))

    async def _number(self) -> list[Any]:
        """Number what is visible, and delete what was published before: one transaction for what each batch needs."""
        async with self._database.transaction() as connection:
            await self._lock(connection)
            if self._cleared < self._cursor:
                await self._clear(connection)
            await self._number_more(connection)
            return await connection.fetch(SQL["unpublished"], self._shard, self._cursor, ROWS_MAX, BYTES_MAX)

    async def _number_more(self, connection: Any) -> None:
        """Number rows up to one transaction's worth, but those of topics with parked rows: they are parked as well."""
        parked, numbered = await connection.fetchrow(SQL["standing"], self._shard)
        if parked:
            await connection.execute(SQL["park_followers"], self._shard, parked, PIECE_ROWS)
        if numbered >= ROWS_MAX:
            return
        highest = await connection.fetchval(SQL["number"], self._shard, parked, ROWS_MAX - numbered)
        if highest is not None:
            await connection.execute(SQL["move_counter"], self._shard, self._term, highest)

    async def _lock(self, connection: Any) -> Any:
        lease = await connection.fetchrow(SQL["lock_lease"], self._shard, self._term, LEASE_SECONDS)
        if lease is None:
            raise Fenced(Code.LEASE_LOST, f"The relay of shard {self._shard} has a newer holder")
        self._renewed = self._clock.monotonic()
        return lease

    async def _clear(self, connection: Any) -> None:
        await connection.fetchval(SQL["clear"], self._shard, self._cursor)
        await connection.execute(SQL["move_cursor"], self._shard, self._term, self._cursor)
        self._cleared = self._cursor

    async def _park(self, row: Any, code: str) -> None:
        log.error("outbox row parked", shard=self._shard, topic=row["topic"], agency_id=row["agency_id"], code=code)
        async with self._database.transaction() as connection:
            await self._lock(connection)
            await connection.execute(SQL["park"], self._shard, row["id"], code)
            await connection.execute(SQL["park_numbered_followers"], self._shard, row["topic"], row["number"])

    async def _rest(self) -> bool:
        """Wait for a commit of this process, or for the poll that finds those of others; tell whether it was a commit."""
        try:
            return await asyncio.wait_for(self._wake.wait(), POLL_SECONDS)
        except TimeoutError:
            return False

    def _count(self, outcome: str, records: int = 0) -> None:
        metrics.relay_transactions.labels(str(self._shard), outcome).inc()
        metrics.relay_records.labels(str(self._shard)).inc(records)
