"""What an operator reads in PostgreSQL, as role `flux_reader`.

One agency, under row-level security: the transaction is opened for it, and each statement says it again. Everything is
read and nothing written. Failure: `Unavailable` where PostgreSQL does not answer; None or nothing where there is no such
row, which is also what another agency's rows look like.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

from flux_common.kernel.positions import Position
from flux_common.postgres.database import Database
from flux_common.postgres.queries import Queries
from flux_common.settings import PostgresSettings

Row = dict[str, Any]
APPLICATION: Final = "flux-etl"
_SQL: Final = Queries.load("flux_client", "reader.sql")
_LEDGER: Final = Queries.load("flux_client", "ledger.sql")


@asynccontextmanager
async def reading(settings: PostgresSettings, agency: str) -> AsyncIterator[FluxReader]:
    """Yield a reader of one agency. Raises Unavailable; FluxError if the server is too old."""
    small = settings.model_copy(update={"pool_min": 1, "pool_max": 2})
    database = await Database.open(small, APPLICATION)
    try:
        yield FluxReader(database, agency)
    finally:
        await database.close()


class FluxReader:
    """Reads one agency's runs, history, chains and audit log."""

    def __init__(self, database: Database, agency: str) -> None:
        self._database, self._agency = database, agency

    async def runs(self, state: str | None, limit: int) -> list[Row]:
        """Return the newest runs, optionally of one state."""
        return await self._fetch("list_runs", state, limit)

    async def find(self, run: str) -> Row | None:
        """Return id, request id, state and attempt of the run that `run` names by its id or its request's."""
        return await self._first("find_run", as_uuid(run), run)

    async def run(self, run_id: UUID) -> Row | None:
        """Return everything about a run, as it stands now."""
        row = await self._first("run", run_id)
        return None if row is None else {**row, "rejects": json.loads(row["rejects"])}

    async def items(self, run_id: UUID) -> list[Row]:
        """Return how many partitions and steps of a run stand in which state."""
        return await self._fetch("items", run_id)

    async def summary(self, run_id: UUID) -> Row | None:
        """Return state and counts of a run as they stand now."""
        return await self._first("summary", run_id)

    async def events(self, run_id: UUID, after: int, limit: int) -> list[Row]:
        """Return the history of a run, oldest first, behind event number `after`."""
        rows = await self._fetch("events", run_id, after, limit)
        return [{**row, "detail": json.loads(row["detail"])} for row in rows]

    async def chains(self, run_id: UUID) -> list[Row]:
        """Return each partition's record chain, recomputed: number, slices, head, and the fault if there is one."""
        return await self._fetch("verify_chain", run_id)

    async def effects(self, source: str, position: Position) -> list[Row]:
        """Return what the record at `position` of the runs or progress topic (`source`) did to runs of this agency."""
        return await self._fetch("explain_position", source, position.tp.kafka_partition, position.offset)

    async def sealed_at(self, position: Position) -> Row | None:
        """Return the audit entry of the fact at `position`."""
        return _entry(await self._first("sealed_at", position.tp.kafka_partition, position.offset))

    async def audit_entries(self, before: int | None, limit: int) -> list[Row]:
        """Return the last entries of the audit log, newest first."""
        return [_opened(row) for row in await self._fetch("audit_entries", before, limit)]

    async def audit_entries_about(self, which: str) -> list[Row]:
        """Return the entry of this leaf index, or those about the event of this id."""
        if which.isdecimal():
            return [_opened(row) for row in await self._fetch("audit_entry", int(which))]
        event = as_uuid(which)
        return [] if event is None else [_opened(row) for row in await self._fetch("audit_entries_of", event)]

    async def _fetch(self, name: str, *arguments: Any) -> list[Row]:
        async with self._database.transaction([self._agency], reader=True) as connection:
            return [dict(row) for row in await connection.fetch(_SQL[name], self._agency, *arguments)]

    async def _first(self, name: str, *arguments: Any) -> Row | None:
        rows = await self._fetch(name, *arguments)
        return rows[0] if rows else None


async def booked(settings: PostgresSettings, position: Position) -> Row:
    """Return how the service of these settings booked an offset: `class`, `code`, `ref`, and the lane's `next_offset`.

    The class is *unread* for an offset that the lane has not reached, *unknown* where there is no such lane or the
    offset is older than its ledger.
    """
    database = await Database.open(settings.model_copy(update={"pool_min": 1, "pool_max": 1}), APPLICATION)
    try:
        async with database.transaction() as connection:
            tp = position.tp
            lane = await connection.fetchrow(_LEDGER["lane"], tp.topic, tp.kafka_partition)
            row = await connection.fetchrow(_LEDGER["exception"], tp.topic, tp.kafka_partition, position.offset)
    finally:
        await database.close()
    if lane is None or position.offset < lane["ledger_floor"]:
        return {"class": "unknown", "next_offset": lane and lane["next_offset"]}
    if position.offset >= lane["next_offset"]:
        return {"class": "unread", "next_offset": lane["next_offset"]}
    found = dict(row) if row is not None else {"class": "effect"}
    return {**found, "next_offset": lane["next_offset"]}


def as_uuid(text: str) -> UUID | None:
    """Return `text` as a UUID if it is one in the usual form."""
    try:
        return UUID(text) if len(text) == 36 else None
    except ValueError:
        return None


def _entry(row: Row | None) -> Row | None:
    return None if row is None else _opened(row)


def _opened(row: Row) -> Row:
    """Read the entry's bytes; what is stored is what was hashed, so it is only parsed, never written again."""
    return {**row, "entry": json.loads(row["entry"])}
