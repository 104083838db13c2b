"""A member of a lane group: a small real store and handler on PostgreSQL, in-process or as a process that may be killed.

Run: `member.py BOOTSTRAP PREFIX DSN TOPIC`; it reads until SIGTERM and says `taken TOPIC/N OFFSET` for each Take.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from flux_common.kafka.lanes import LaneLimits, LaneLoop
from flux_common.kernel.clock import SystemClock
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Fenced, FluxError, InvalidMessage, LaneStopped, Unavailable
from flux_common.kernel.positions import Lane, LaneBatch, TopicPartition
from flux_common.settings import KafkaSettings

TABLES = """
CREATE TABLE lanes (topic text, kafka_partition int, topic_id text, owner_epoch bigint, next_offset bigint,
                    controls bigint DEFAULT 0, ticks bigint DEFAULT 0, PRIMARY KEY (topic, kafka_partition));
CREATE TABLE effects (topic text, kafka_partition int, record_offset bigint, value text, how text);
"""
TAKE = """
INSERT INTO lanes AS lane VALUES ($1, $2, $3, 1, $4)
ON CONFLICT (topic, kafka_partition) DO UPDATE SET owner_epoch = lane.owner_epoch + 1
RETURNING topic_id, owner_epoch, next_offset
"""
ADVANCE = """
UPDATE lanes SET next_offset = $4, controls = controls + $6, ticks = ticks + $7
WHERE topic = $1 AND kafka_partition = $2 AND next_offset = $3 AND owner_epoch = $5 RETURNING true
"""
EFFECTS = "INSERT INTO effects SELECT $1, $2, o, v, $5 FROM unnest($3::bigint[], $4::text[]) AS x (o, v)"


class TableStore:
    """Lanes and effects in two tables; a record whose value begins with `bad` is refused."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self.pool = pool
        self.taken: list[Lane] = []
        self.batches: list[tuple[int, int]] = []

    async def take(self, tp: TopicPartition, *, topic_id: str, log_start: int, log_end: int) -> Lane:
        """Raise the epoch and judge the offset."""
        async with self._transaction() as connection:
            row = await connection.fetchrow(TAKE, tp.topic, tp.kafka_partition, topic_id, log_start)
        lane = Lane("test", tp, row["topic_id"], row["owner_epoch"], row["next_offset"])
        if row["topic_id"] != topic_id:
            raise LaneStopped(Code.TOPIC_EXCHANGED, "exchanged")
        if not log_start <= lane.next_offset <= log_end:
            raise LaneStopped(Code.LANE_DATA_LOST, "lost")
        self.taken.append(lane)
        return lane

    async def tick(self, lane: Lane, end_offset: int, *, caught_up: bool) -> Lane:
        """Advance without records."""
        async with self._transaction() as connection:
            await self._advance(connection, LaneBatch(lane, (), end_offset), ticks=int(caught_up))
        return Lane(lane.consumer, lane.tp, lane.topic_id, lane.owner_epoch, end_offset)

    async def apply(self, batch: LaneBatch) -> None:
        """Write one effect for each record."""
        if any((record.value or b"").startswith(b"bad") for record in batch.records):
            raise InvalidMessage(Code.JSON_INVALID, "bad")
        await self._write(batch, "applied")
        self.batches.append((batch.lane.next_offset, batch.end_offset))

    async def refuse(self, batch: LaneBatch, problem: FluxError) -> None:
        """Write the one record as refused."""
        await self._write(batch, problem.code)

    async def _write(self, batch: LaneBatch, how: str) -> None:
        tp = batch.lane.tp
        async with self._transaction() as connection:
            await self._advance(connection, batch)
            offsets = [record.position.offset for record in batch.records]
            values = [(record.value or b"").decode(errors="replace") for record in batch.records]
            await connection.execute(EFFECTS, tp.topic, tp.kafka_partition, offsets, values, how)

    async def _advance(self, connection: Any, batch: LaneBatch, ticks: int = 0) -> None:
        lane = batch.lane
        args = (lane.tp.topic, lane.tp.kafka_partition, lane.next_offset, batch.end_offset, lane.owner_epoch)
        if await connection.fetchval(ADVANCE, *args, batch.controls, ticks) is None:
            raise Fenced(Code.LANE_FENCED, "fenced")

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Any]:
        try:
            async with self.pool.acquire() as connection, connection.transaction():
                yield connection
        except (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError) as problem:
            raise Unavailable(Code.DATABASE_UNAVAILABLE, "gone") from problem


def loop_on(store: TableStore, settings: KafkaSettings, topic: str, **options: Any) -> LaneLoop:
    """Return a loop that reads `topic`, with short times."""
    limits = options.pop("limits", LaneLimits(records_max=200, watermark_s=0.5, quiet_s=0.3))
    options = {"handler": store, "group": "lanes", **options}
    return LaneLoop(
        settings, topics=topic, store=store, clock=SystemClock(), jitter=random.random, limits=limits, **options
    )


async def main(bootstrap: str, prefix: str, dsn: str, topic: str) -> None:
    """Read until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    settings = KafkaSettings(bootstrap=bootstrap, topic_prefix=prefix, session_timeout_ms=3000)
    async with asyncpg.create_pool(dsn, min_size=1, max_size=4) as pool:
        store = TableStore(pool)
        take = store.take

        async def telling(tp: TopicPartition, **facts: Any) -> Lane:
            lane = await take(tp, **facts)
            print(f"taken {tp} {lane.next_offset}", flush=True)
            return lane

        store.take = telling  # type: ignore[method-assign]
        await loop_on(store, settings, topic).run(stopping)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
