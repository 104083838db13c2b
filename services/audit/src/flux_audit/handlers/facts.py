"""The facts lane: every record becomes a leaf of its agency's log, once, in the order of offsets.

One batch, one transaction: make and lock the head rows; find what is sealed already; decide each log's leaves
(domain/sealing.py); write leaves, nodes and head rows; sign what is due. Nothing is ever dead-lettered: a record that
cannot be read, or that the database refuses, is sealed as `unreadable`, and one whose id exists with other contents as
`conflict`. Both are alerts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import structlog

from flux_audit.domain.sealing import Arrival, Fate, SealedLeaf, known_facts, seal
from flux_audit.handlers.decoding import FactRead, read_fact, unreadable_fact
from flux_audit.handlers.heads import HeadPublisher
from flux_audit.handlers.unsigned import Unsigned
from flux_audit.ports import FactKey, Growth, LogStore, LogStores
from flux_common.kernel.clock import rfc3339
from flux_common.kernel.errors import FluxError
from flux_common.kernel.positions import LaneBatch
from flux_common.observability import metrics
from flux_common.postgres.lanes import Advance, PostgresLanes

log = structlog.get_logger(__name__)

ByAgency = Mapping[str, Sequence[FactRead]]


class FactsHandler:
    """Applies batches of the facts lane."""

    def __init__(self, lanes: PostgresLanes, stores: LogStores, publisher: HeadPublisher, unsigned: Unsigned) -> None:
        self._lanes = lanes
        self._stores = stores
        self._publisher = publisher
        self._unsigned = unsigned

    async def apply(self, batch: LaneBatch) -> None:
        """Seal a batch in one transaction."""
        await self._apply(batch, [read_fact(record) for record in batch.records])

    async def refuse(self, batch: LaneBatch, problem: FluxError) -> None:
        """Seal the records of `batch` as unreadable: their bytes, or the database, refuse them as they came."""
        await self._apply(batch, [unreadable_fact(record, problem) for record in batch.records])

    async def _apply(self, batch: LaneBatch, read: Sequence[FactRead]) -> None:
        by_agency: dict[str, list[FactRead]] = defaultdict(list)
        for one in read:
            by_agency[one.agency_id].append(one)
        tp = batch.lane.tp
        await self._unsigned.prepare(batch.lane)
        self._unsigned.expect(tp, {agency: _oldest(those) for agency, those in by_agency.items()})
        async with self._lanes.advance(batch, by_agency) as advance:
            store = self._stores(advance.connection)
            growths = await self._seal(store, advance, by_agency)
            publication = await self._publisher.publish(store, [one.grown for one in growths], advance.now)
            advance.emit(publication.events)
        self._publisher.confirm(publication)
        self._unsigned.settle(tp, publication.trees)
        self._unsigned.reach(tp, _newest(read))
        _tell(growths, read)

    async def _seal(self, store: LogStore, advance: Advance, by_agency: ByAgency) -> list[Growth]:
        await store.open(by_agency)
        trees = await store.lock(by_agency)
        sealed_before = await store.find([key for those in by_agency.values() for one in those if (key := _key(one))])
        growths = []
        for agency, those in by_agency.items():
            arrivals = [_arrival(advance, one) for one in those]
            known = known_facts(arrivals, _of_agency(agency, sealed_before))
            growths.append(Growth(trees[agency], seal(agency, trees[agency].frontier, arrivals, known)))
        await store.append(growths)
        _book(advance, growths, by_agency)
        return growths


def _key(read: FactRead) -> FactKey | None:
    return (read.agency_id, UUID(read.fact.fact_id)) if read.fact is not None else None


def _of_agency(agency: str, sealed: Mapping[FactKey, SealedLeaf]) -> dict[str, SealedLeaf]:
    return {str(fact_id): leaf for (owner, fact_id), leaf in sealed.items() if owner == agency}


def _arrival(advance: Advance, read: FactRead) -> Arrival:
    """Return a record as it is sealed; where the broker states no time of arrival, the time of sealing stands."""
    at = read.record.appended_at or advance.now
    return Arrival(advance.batch.lane.topic_id, read.record.position, rfc3339(at), read.sha256, read.fact)


def _book(advance: Advance, growths: Sequence[Growth], by_agency: ByAgency) -> None:
    for growth in growths:
        for one in by_agency[growth.tree.agency_id]:
            if growth.sealed.fates[one.record.position] is Fate.DUPLICATE:
                advance.duplicate(one.record, ref=one.fact.fact_id if one.fact is not None else None)


def _oldest(read: Sequence[FactRead]) -> datetime | None:
    """Return the time of the oldest fact; of what cannot be read, when it arrived."""
    times = [_made_at(one) for one in read]
    return min((at for at in times if at is not None), default=None)


def _made_at(read: FactRead) -> datetime | None:
    return datetime.fromisoformat(read.fact.ts) if read.fact is not None else read.record.appended_at


def _newest(read: Sequence[FactRead]) -> datetime | None:
    newest = max((one.fact.ts for one in read if one.fact is not None), default=None)
    return datetime.fromisoformat(newest) if newest is not None else None


_SEALED_AS = {Fate.SEALED: "fact", Fate.UNREADABLE: "unreadable", Fate.CONFLICT: "conflict"}


def _tell(growths: Sequence[Growth], read: Sequence[FactRead]) -> None:
    """Count what was sealed, and alert what should never be there."""
    fates = {position: fate for growth in growths for position, fate in growth.sealed.fates.items()}
    for growth in growths:
        metrics.tree_size_leaves.labels(growth.tree.agency_id).set(growth.grown.size)
    for fate, word in _SEALED_AS.items():
        if count := sum(1 for one in fates.values() if one is fate):
            metrics.facts_sealed.labels(word).inc(count)
    for one in read:
        fate = fates[one.record.position]
        if fate in (Fate.UNREADABLE, Fate.CONFLICT):
            log.error(
                "fact not sealed as it came",
                sealed_as=str(fate),
                agency_id=one.agency_id,
                position=str(one.record.position),
                code=one.code,
                sha256=one.sha256,
            )
