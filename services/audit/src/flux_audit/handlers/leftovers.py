"""The timer: signs what no batch has signed, tells how far the lanes are, and keeps the memory fresh.

A lane signs with the batch that seals, when that is due. What is sealed within a second after a head waits for the
next batch, and where none comes, for this timer.
Theory. A head may be signed only by the owner of the lane, for an owner of old might hold a memory of old. The timer has
no records to advance over, and an Advance without them would compare `next_offset` with a lane that is worked at the
same time. So its transaction begins with the other half of an Advance's first statement: the lane's row, by our epoch,
`FOR UPDATE`. A Take waits for it, as it waits for an Advance, and an owner of old finds no row (`Fenced`). Then the
head rows are locked, in the global order, and everything is as in an Advance.
Failure. Nothing is lost by a round that fails: what waits goes on waiting. A fenced lane is let alone until it is taken
again; what PostgreSQL or Kafka do not answer is tried again; anything else ends the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from flux_audit.domain.signing import Tree
from flux_audit.handlers.heads import EMITTER, HeadPublisher, Publication
from flux_audit.handlers.unsigned import Unsigned
from flux_audit.ports import HeldLane, LogStores
from flux_common.contracts import catalogue
from flux_common.contracts.envelope import Outgoing
from flux_common.contracts.facts import LaneWatermark
from flux_common.kernel.clock import Clock, rfc3339
from flux_common.kernel.errors import Fenced, Unavailable
from flux_common.kernel.ids import SYSTEM_AGENCY, derived_id
from flux_common.kernel.positions import Lane, TopicPartition
from flux_common.kernel.signals import Signal, pause
from flux_common.observability import metrics
from flux_common.postgres.database import Database
from flux_common.postgres.outbox import insert_outbox

log = structlog.get_logger(__name__)

ROUND_SECONDS: Final = 0.25
REFRESH_SECONDS: Final = 1.0
WATERMARK_SECONDS: Final = 5.0
AGENCIES_MAX: Final = 200  # in one transaction


@dataclass(frozen=True, slots=True)
class Told:
    """What was said of a lane last: when (monotonic), and how far it was."""

    at: float
    next_offset: int
    watermark: datetime | None


class Leftovers:
    """The timer of one process. `lanes` returns the lanes that are taken now, `on_tick` tells that it lives."""

    def __init__(
        self, database: Database, stores: LogStores, publisher: HeadPublisher, unsigned: Unsigned,
        lanes: Callable[[], Sequence[Lane]], committed: Signal, clock: Clock,
        on_tick: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._database, self._stores = database, stores
        self._publisher, self._unsigned = publisher, unsigned
        self._lanes, self._committed, self._clock, self._on_tick = lanes, committed, clock, on_tick
        self._fenced: dict[TopicPartition, int] = {}
        self._told: dict[TopicPartition, Told] = {}
        self._refreshed = float("-inf")

    async def run(self, stopping: asyncio.Event) -> None:
        """Sign until `stopping`. Raises InvariantBroken, or whatever the failure table does not name."""
        while not stopping.is_set():
            self._on_tick()
            try:
                await self.round()
            except Unavailable as problem:
                log.warning("signing waits", code=problem.code, error=problem.message)
            await pause(stopping, ROUND_SECONDS)

    async def round(self) -> None:
        """Look at every lane once. Raises Unavailable."""
        taken = self._lanes()
        self._fenced = {one.tp: one.owner_epoch for one in taken if self._fenced.get(one.tp) == one.owner_epoch}
        lanes = [lane for lane in taken if lane.tp not in self._fenced]
        for tp in self._unsigned.keep([lane.tp for lane in lanes]):
            self._told.pop(tp, None)
            with suppress(KeyError):
                metrics.seal_lag_seconds.remove(str(tp.kafka_partition))
        if lanes and self._clock.monotonic() - self._refreshed >= REFRESH_SECONDS:
            await self._unsigned.memory.refresh()
            self._refreshed = self._clock.monotonic()
        for lane in lanes:
            await self._look_at(lane)

    async def _look_at(self, lane: Lane) -> None:
        await self._unsigned.prepare(lane)
        self._unsigned.listen(lane.tp)
        agencies = self._unsigned.waiting(lane.tp)[:AGENCIES_MAX]
        told = self._told.get(lane.tp)
        if agencies or told is None or self._clock.monotonic() - told.at >= WATERMARK_SECONDS:
            try:
                await self._sign(lane, agencies)
            except Fenced as problem:
                self._fenced[lane.tp] = lane.owner_epoch
                log.warning("signing lets go of a lane", lane=str(lane.tp), code=problem.code)
                return
        self._measure(lane.tp)

    async def _sign(self, lane: Lane, agencies: Collection[str]) -> None:
        """Sign what waits, and tell how far the lane is, in one transaction under the lane's lock."""
        async with self._database.transaction(agencies) as connection:
            store = self._stores(connection)
            held = await store.hold(lane)
            publication = Publication()
            if agencies:
                trees = await store.lock(agencies)
                found = [trees.get(agency) or Tree(agency) for agency in agencies]
                publication = await self._publisher.publish(store, found, held.now)
            said = self._say(lane, held)
            await insert_outbox(connection, [*publication.events, *said])
        self._publisher.confirm(publication)
        self._unsigned.settle(lane.tp, publication.trees)
        if said:
            self._told[lane.tp] = Told(self._clock.monotonic(), held.next_offset, self._watermark(lane, held))
        if publication.events or said:
            self._committed.set()

    def _say(self, lane: Lane, held: HeldLane) -> list[Outgoing]:
        """Return the lane's watermark record, where one is due and says something new."""
        told, watermark = self._told.get(lane.tp), self._watermark(lane, held)
        if watermark is None:
            return []
        if told is not None:
            early = self._clock.monotonic() - told.at < WATERMARK_SECONDS
            if early or (told.next_offset, told.watermark) == (held.next_offset, watermark):
                return []
        return [_watermark_event(lane.tp, held, watermark)]

    def _watermark(self, lane: Lane, held: HeldLane) -> datetime | None:
        """Return up to when facts are sealed: the lane's own word at its end, or the newest fact that was sealed."""
        newest = self._unsigned.newest(lane.tp)
        known = [one for one in (held.watermark, newest) if one is not None]
        return min(max(known), held.now) if known else None

    def _measure(self, tp: TopicPartition) -> None:
        oldest = self._unsigned.oldest(tp)
        age = (self._clock.now() - oldest).total_seconds() if oldest is not None else 0.0
        metrics.seal_lag_seconds.labels(str(tp.kafka_partition)).set(max(age, 0.0))


def _watermark_event(tp: TopicPartition, held: HeldLane, watermark: datetime) -> Outgoing:
    body = LaneWatermark(kafka_partition=tp.kafka_partition, next_offset=held.next_offset, watermark=rfc3339(watermark))
    return EMITTER.event(
        catalogue.TREE_HEADS,
        catalogue.LANE_WATERMARK,
        body,
        agency_id=SYSTEM_AGENCY,
        key=f"_lane/{tp.kafka_partition}",
        event_id=derived_id(["lane-watermark", tp.kafka_partition, held.next_offset, rfc3339(watermark)]),
        at=held.now,
    )
