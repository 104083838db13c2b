"""Room in the outbox: where the relay stands still, lanes wait before they write what nobody takes away.

Theory. An Advance writes events that a relay must publish. Consuming and publishing fail apart: a broker whose transactions do
not commit still hands out records. Then lanes would fill the database, which all agencies share, for as long as it lasts. So
what waits in each shard is measured now and then, and past a bound no Advance writes to it: its lane is held where it is,
nothing is decided, lost or passed over. The relay depends on no lane, so whatever it publishes makes room.

| what waits in a shard | an Advance that would write to it |
|---|---|
| less than both bounds, or not measured yet | goes on |
| as much as either | `Overloaded`, rolled back; the lane asks again every few seconds, and does nothing else |
| less again, but not yet less than half of both | the same, so that who was held finds more than a moment's room |

An Advance without events goes on, and so do other shards, but for what shares a batch with a full one. The bounds are for the
disk, and soft: between two measurements more is written. Parked rows do not count: one topic that is refused must not hold its
neighbours. While PostgreSQL does not answer, the last measurement stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Overloaded, Unavailable
from flux_common.kernel.ids import shard_of
from flux_common.kernel.signals import pause
from flux_common.observability import metrics
from flux_common.postgres.database import Database
from flux_common.postgres.outbox import SQL

MEASURE_SECONDS: Final = 2.0
RETRY_MAX_SECONDS: Final = 4.0
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RoomLimits:
    """What may wait in one shard: rows, and bytes of their values."""

    rows_max: int = 100_000
    bytes_max: int = 256 * 2**20

    def reached(self, row: Any, share: float = 1.0) -> bool:
        """Tell whether what waits is `share` of either bound, or more."""
        return bool(row["rows"] >= share * self.rows_max or row["bytes"] >= share * self.bytes_max)


class OutboxRoom:
    """What waits in each shard of a service's outbox, as it was measured last."""

    def __init__(self, database: Database, limits: RoomLimits | None = None) -> None:
        self._database = database
        self._limits = limits or RoomLimits()
        self._full: frozenset[int] = frozenset()

    async def keep(self, stopping: asyncio.Event) -> None:
        """Measure until `stopping`."""
        going = True
        while going:
            try:
                await self.measure()
            except Unavailable as problem:
                log.warning("the outbox is not measured", code=problem.code, error=problem.message)
            going = await pause(stopping, MEASURE_SECONDS)

    async def measure(self) -> None:
        """Look at what waits, and log each change.

        Raises:
            Unavailable: PostgreSQL does not answer.
        """
        async with self._database.transaction() as connection:
            shards = await connection.fetch(SQL["backlog"])
        _tell(shards)
        full = frozenset(
            row["shard"] for row in shards if self._limits.reached(row, 0.5 if row["shard"] in self._full else 1.0)
        )
        if full != self._full:
            say = log.error if full - self._full else log.info
            say("lanes wait for room in the outbox" if full else "there is room in the outbox", shards=sorted(full))
        self._full = full

    def check(self, agencies: Collection[str]) -> None:
        """Return if there is room for events about `agencies`.

        Raises:
            Overloaded: a shard of theirs is full (OUTBOX_FULL).
        """
        full = {shard_of(agency) for agency in agencies} & self._full
        if full:
            raise Overloaded(
                Code.OUTBOX_FULL,
                f"Shards {sorted(full)} of the outbox are full; is the relay at work?",
                retry_max=RETRY_MAX_SECONDS,
            )


def _tell(shards: Sequence[Any]) -> None:
    for row in shards:
        metrics.outbox_oldest_age_seconds.labels(str(row["shard"])).set(row["oldest_age"])
        metrics.outbox_parked_rows.labels(str(row["shard"])).set(row["parked"])
