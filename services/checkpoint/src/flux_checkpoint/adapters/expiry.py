"""What expires in PostgreSQL: the functions of schema `flux`, called for one agency inside its transaction."""

from __future__ import annotations

from datetime import datetime, timedelta

from flux_common.postgres.database import Connection
from flux_common.postgres.queries import Queries

_SQL = Queries.load("flux_checkpoint.adapters", "expiry.sql")


class PostgresExpiry:
    """The `ExpiryStore` of one step."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def agencies(self) -> list[str]:
        """Return the agencies that ever had a run."""
        return [row["agency_id"] for row in await self._connection.fetch(_SQL["agencies"])]

    async def begin(self, agency_id: str) -> datetime | None:
        """Return the database's time if no other process lets this agency's rows expire now, else None."""
        now: datetime | None = await self._connection.fetchval(_SQL["begin"], agency_id)
        return now

    async def expire_events(self, agency_id: str, keep: timedelta, most: int) -> int:
        """Delete up to `most` lines of history that are older than `keep` and whose run has ended; return how many."""
        gone: int = await self._connection.fetchval(_SQL["expire_events"], agency_id, keep, most)
        return gone

    async def expire_runs(self, agency_id: str, most: int) -> int:
        """Delete up to `most` ended runs whose time is over, with their items and chains; return how many."""
        gone: int = await self._connection.fetchval(_SQL["expire_runs"], agency_id, most)
        return gone
