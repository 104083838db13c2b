"""What a dispatcher's pass reads and writes in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from flux_checkpoint.adapters.rows import item_of
from flux_checkpoint.domain.dispatch import DUE_PAGE, Facts, Patience, Tally
from flux_checkpoint.domain.model import Counts, Item, Run, RunKey
from flux_checkpoint.ports import Ending, OpenRuns
from flux_common.contracts.catalogue import PROGRESS
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Fenced
from flux_common.postgres.database import Connection, Database
from flux_common.postgres.queries import Queries

_SQL = Queries.load("flux_checkpoint.adapters", "dispatcher.sql")


class Leases:
    """The leases of the shards: who dispatches."""

    def __init__(self, database: Database, holder: str, seconds: float = 6.0) -> None:
        self._database = database
        self._holder = holder
        self.seconds = seconds

    async def acquire(self, shard: int) -> int | None:
        """Return the term if the lease is ours or free, else None."""
        async with self._database.transaction() as connection:
            term: int | None = await connection.fetchval(_SQL["acquire_lease"], shard, self._holder, self.seconds)
            return term

    async def release(self, shard: int, term: int) -> None:
        """Give the lease back, so that a successor need not wait."""
        async with self._database.transaction() as connection:
            await connection.execute(_SQL["release_lease"], shard, term)

    async def due(self, shard: int, most: int) -> list[RunKey]:
        """Return the runs whose time has come."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_SQL["due"], shard, most)
        return [RunKey(row["agency_id"], row["run_id"]) for row in rows]

    async def sweep(self, shard: int) -> int:
        """Put open runs that the agenda forgot back on it; return how many (it must be none)."""
        async with self._database.transaction() as connection:
            agencies = [row["agency_id"] for row in await connection.fetch(_SQL["agencies"], shard)]
        async with self._database.transaction(agencies) as connection:
            return len(await connection.fetch(_SQL["sweep"], shard, agencies))

    async def open_runs(self) -> dict[str, OpenRuns]:
        """Return the open runs of all agencies by state."""
        async with self._database.transaction() as connection:
            agencies = [row["agency_id"] for row in await connection.fetch(_SQL["all_agencies"])]
        async with self._database.transaction(agencies) as connection:
            rows = await connection.fetch(_SQL["open_runs"], agencies)
        return {row["state"]: OpenRuns(row["count"], row["silence_s"]) for row in rows}


class PostgresDispatch:
    """The `DispatchStore` of one pass."""

    def __init__(self, connection: Connection, patience: Patience) -> None:
        self._connection = connection
        self._patience = patience

    async def hold(self, shard: int, term: int, seconds: float) -> datetime:
        """Lock the shard's lease under our term and return the database's time.

        Raises:
            Fenced: another dispatcher holds the lease.
        """
        now: datetime | None = await self._connection.fetchval(_SQL["lock_lease"], shard, term, seconds)
        if now is None:
            raise Fenced(Code.LEASE_LOST, f"The dispatcher of shard {shard} has a newer holder")
        return now

    async def gather(self, run: Run, now: datetime) -> Facts:
        """Return the facts of one pass."""
        key = (run.key.agency_id, run.key.run_id)
        tallies = await self._connection.fetch(_SQL["tallies"], *key)
        rows = await self._connection.fetch(_SQL["due_items"], *key, DUE_PAGE)
        due = [item_of(row) for row in rows]
        failed = await self._connection.fetchrow(_SQL["failed_item"], *key)
        manifest = await self._connection.fetchrow(_SQL["run_row"], *key)
        return Facts(
            run=run,
            tallies={row["kind"]: _tally(row) for row in tallies},
            totals=sum((_counts(row) for row in tallies if row["kind"] == "extract"), Counts()),
            due=due,
            stalled=await self._stalled(key),
            corrupt=[item for item, row in zip(due, rows, strict=True) if _corrupt(item, row["last_hash"])],
            failed=item_of(failed) if failed is not None else None,
            agency_in_hand=await self._connection.fetchval(_SQL["agency_in_hand"], run.key.agency_id),
            next_due=min((row["next_due"] for row in tallies if row["next_due"] is not None), default=None),
            manifest_digest=manifest["manifest_digest"] if manifest is not None else None,
        )

    async def _stalled(self, key: tuple[Any, Any]) -> list[Item]:
        patience = self._patience
        rows = await self._connection.fetch(
            _SQL["stalled_items"],
            *key,
            PROGRESS.name,
            patience.stall_after,
            patience.slice_wall_max,
            patience.queued_max,
        )
        return [item_of(row) for row in rows]

    async def make_items(self, key: RunKey, kind: str, items: Sequence[tuple[int, int, int]]) -> None:
        """Create PENDING items: (number, first object, object count) each."""
        numbers, firsts, counts = (list(column) for column in zip(*items, strict=True))
        await self._connection.execute(_SQL["make_items"], key.agency_id, key.run_id, kind, numbers, firsts, counts)

    async def heads(self, key: RunKey, first: int, most: int) -> list[tuple[int, int, bytes]]:
        """Return number, last_seq and chain head of finished partitions from number `first` on."""
        rows = await self._connection.fetch(_SQL["heads"], key.agency_id, key.run_id, first, most)
        return [(row["number"], row["last_seq"], row["chain_head"]) for row in rows]

    async def indexes(self, key: RunKey) -> list[tuple[int, bytes]]:
        """Return number and index digest of the finished gather items."""
        rows = await self._connection.fetch(_SQL["indexes"], key.agency_id, key.run_id)
        return [(row["number"], row["result_digest"]) for row in rows]

    async def rejects_by_code(self, key: RunKey) -> dict[str, int]:
        """Return the rejected objects of a run by code."""
        rows = await self._connection.fetch(_SQL["rejects_by_code"], key.agency_id, key.run_id)
        return {row["code"]: row["total"] for row in rows}

    async def request(self, key: RunKey) -> dict[str, Any]:
        """Return the run's request as admitted."""
        row = await self._connection.fetchrow(_SQL["run_row"], key.agency_id, key.run_id)
        assert row is not None
        request: dict[str, Any] = json.loads(row["request"])
        return request

    async def ending(self, key: RunKey) -> Ending:
        """Return what finalize left."""
        row = await self._connection.fetchrow(_SQL["run_row"], key.agency_id, key.run_id)
        assert row is not None
        return Ending(row["manifest_uri"], row["manifest_digest"], row["manifest_files"], row["manifest_rows"])

    async def end_run(
        self, key: RunKey, state: str, cause: str | None, code: str | None, totals: Counts, keep: timedelta
    ) -> datetime | None:
        """Move a run to a terminal state, once for its attempt; return when, or None if it has ended already.

        What was in hand goes back to PENDING under a new term: an ended run holds nothing of its agency's window.
        """
        ended: datetime | None = await self._connection.fetchval(
            _SQL["end_run"],
            key.agency_id,
            key.run_id,
            state,
            cause,
            code,
            totals.read,
            totals.written,
            totals.rejected,
            totals.bytes_in,
            totals.bytes_out,
            keep,
        )
        if ended is not None:
            await self._connection.execute(_SQL["take_back"], key.agency_id, key.run_id)
        return ended

    async def look_again(self, key: RunKey, at: datetime | None) -> None:
        """Set when the dispatcher looks at the run next; None takes it off the agenda."""
        if at is None:
            await self._connection.execute(_SQL["off_agenda"], key.agency_id, key.run_id)
        else:
            await self._connection.execute(_SQL["look_again"], key.agency_id, key.run_id, at)


def _tally(row: Any) -> Tally:
    return Tally(row["pending"], row["dispatched"], row["running"], row["finished"], row["failed"])


def _counts(row: Any) -> Counts:
    return Counts(row["read"], row["written"], row["rejected"], row["bytes_in"], row["bytes_out"])


def _corrupt(item: Item, last_hash: bytes | None) -> bool:
    """Tell whether a chain's stored head is not its last link."""
    return item.last_seq > 0 and last_hash != item.chain_head
