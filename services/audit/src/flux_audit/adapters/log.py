"""The logs in PostgreSQL, inside a transaction that somebody else opened: the `LogStore` of lanes and signer.

Every statement is set-based: a batch of a thousand facts is one insert of leaves, one of nodes, one update of heads.
Leaves and nodes are only ever inserted (the role may do nothing else); the head rows are compared with what was locked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from flux_audit.domain.merkle import EMPTY_ROOT, Frontier, NodeCoordinate
from flux_audit.domain.sealing import Leaf, SealedLeaf
from flux_audit.domain.signing import Tree
from flux_audit.ports import FactKey, Growth, HeldLane, Nodes, SignedHead, WantedLeaf
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Fenced, InvariantBroken
from flux_common.kernel.positions import Lane
from flux_common.postgres.database import Connection
from flux_common.postgres.queries import Queries

_SQL = Queries.load("flux_audit.adapters", "log.sql")


class PostgresLogs:
    """The `LogStore` of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def hold(self, lane: Lane) -> HeldLane:
        """Lock a lane's row under our epoch. Raises Fenced where the lane is somebody else's."""
        row = await self._connection.fetchrow(
            _SQL["hold_lane"], lane.tp.topic, lane.tp.kafka_partition, lane.owner_epoch
        )
        if row is None:
            raise Fenced(Code.LANE_FENCED, f"{lane.tp} is owned by somebody newer").with_context(epoch=lane.owner_epoch)
        return HeldLane(row["now"], row["next_offset"], row["watermark"])

    async def open(self, agencies: Collection[str]) -> None:
        """Make the head rows that are missing: empty trees."""
        await self._connection.execute(_SQL["open"], sorted(agencies), EMPTY_ROOT)

    async def lock(self, agencies: Collection[str]) -> dict[str, Tree]:
        """Lock and return the trees that have a head row. Raises InvariantBroken where one contradicts itself."""
        rows = await self._connection.fetch(_SQL["lock"], sorted(agencies))
        return {
            row["agency_id"]: Tree(row["agency_id"], Frontier(row["size"], tuple(row["frontier"])), row["signed_size"])
            for row in rows
        }

    async def find(self, facts: Collection[FactKey]) -> dict[FactKey, SealedLeaf]:
        """Return the leaves of those facts that are sealed already."""
        if not facts:
            return {}
        rows = await self._connection.fetch(_SQL["find"], *_columns(sorted(set(facts))))
        return {(row["agency_id"], row["event_id"]): SealedLeaf(row["seq"], row["leaf_hash"]) for row in rows}

    async def append(self, growths: Sequence[Growth]) -> None:
        """Write leaves, nodes and head rows. Raises InvariantBroken where a head row is not as it was locked."""
        growing = sorted((one for one in growths if one.sealed.leaves), key=lambda one: one.tree.agency_id)
        if not growing:
            return
        leaves = [_leaf_columns(one.tree.agency_id, leaf) for one in growing for leaf in one.sealed.leaves]
        nodes = [
            (one.tree.agency_id, node.at.level, node.at.index, node.hash)
            for one in growing
            for node in one.sealed.appended.nodes
        ]
        await self._connection.execute(_SQL["add_leaves"], *_columns(leaves))
        await self._connection.execute(_SQL["add_nodes"], *_columns(nodes))
        await self._update("grow", [_growth_columns(one) for one in growing])

    async def nodes(self, wanted: Mapping[str, Collection[NodeCoordinate]]) -> dict[str, Nodes]:
        """Return the stored ones of the wanted nodes, by agency; one query for all."""
        places = [(agency, at.level, at.index) for agency in sorted(wanted) for at in sorted(set(wanted[agency]))]
        found: dict[str, dict[NodeCoordinate, bytes]] = defaultdict(dict)
        if places:
            for row in await self._connection.fetch(_SQL["nodes"], *_columns(places)):
                found[row["agency_id"]][NodeCoordinate(row["level"], row["index"])] = row["hash"]
        return dict(found)

    async def publish(self, heads: Sequence[SignedHead]) -> None:
        """Write what is signed now. Raises InvariantBroken where a head row is not as it was locked."""
        if heads:
            await self._update("publish", [(*_span(one), one.note) for one in heads])

    async def wanted(self, heads: Sequence[SignedHead]) -> list[WantedLeaf]:
        """Return the leaves with a receipt that these heads are the first to cover, in order."""
        if not heads:
            return []
        rows = await self._connection.fetch(_SQL["wanted"], *_columns([_span(one) for one in heads]))
        return [WantedLeaf(row["agency_id"], row["seq"], row["receipt_for"], row["entry"]) for row in rows]

    async def _update(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Change one head row for each of `rows`: its first column is the agency."""
        changed = await self._connection.fetch(_SQL[name], *_columns(rows))
        missed = {row[0] for row in rows} - {row["agency_id"] for row in changed}
        if missed:
            raise InvariantBroken(Code.INVARIANT_BROKEN, "A head row changed under its lock").with_context(
                agencies=sorted(missed), statement=name
            )


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _leaf_columns(agency_id: str, leaf: Leaf) -> tuple[Any, ...]:
    at, wanted = leaf.position, leaf.receipt_for
    return (
        agency_id,
        leaf.seq,
        UUID(leaf.fact.fact_id),
        leaf.entry,
        leaf.hash,
        UUID(wanted) if wanted is not None else None,
        at.tp.kafka_partition,
        at.offset,
    )


def _growth_columns(growth: Growth) -> tuple[Any, ...]:
    before, after = growth.tree, growth.sealed.appended.frontier
    return before.agency_id, before.size, after.size, b"".join(after.hashes), after.root


def _span(signed: SignedHead) -> tuple[str, int, int]:
    return signed.tree.agency_id, signed.tree.signed_size, signed.head.size
