"""The store of logs on a real PostgreSQL: what it refuses, and what row-level security and grants keep from it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest

from flux_audit.adapters.log import PostgresLogs
from flux_audit.domain.merkle import NodeCoordinate, leaf_hash
from flux_audit.domain.sealing import Arrival, SealedLeaf, seal
from flux_audit.domain.signing import Tree
from flux_audit.domain.tree_head import TreeHead
from flux_audit.handlers.decoding import read_fact
from flux_audit.ports import Growth, SignedHead
from flux_common.kernel.errors import Fenced, InvariantBroken, IsolationViolation
from flux_common.kernel.positions import Lane
from flux_common.postgres.database import Database

from .conftest import LANE, Bench, fact


def growth(bench: Bench, tree: Tree, first: int, count: int) -> Growth:
    lane = Lane("audit", LANE, "id", 1, first)
    read = [read_fact(record) for record in bench.batch(lane, [fact(n) for n in range(first, first + count)]).records]
    arrivals = [Arrival("id", one.record.position, "2026-01-01T00:00:00.000Z", one.sha256, one.fact) for one in read]
    return Growth(tree, seal("nasa", tree.frontier, arrivals, {}))


async def test_what_is_appended_is_found_again(bench: Bench, audit_database: Database) -> None:
    """Leaves by their facts' ids, nodes by their places, the tree by its head row; what is not there is left out."""
    async with audit_database.transaction(["nasa"]) as connection:
        store = PostgresLogs(connection)
        await store.open(["nasa"])
        grown = growth(bench, (await store.lock(["nasa", "usgs"]))["nasa"], 0, 5)
        await store.append([grown])
        trees = await store.lock(["nasa", "usgs"])
        keys = [("nasa", UUID(leaf.fact.fact_id)) for leaf in grown.sealed.leaves]
        found = await store.find([*keys, ("nasa", UUID(int=1))])
        nodes = await store.nodes({"nasa": [NodeCoordinate(2, 0), NodeCoordinate(3, 0)]})

    assert trees == {"nasa": grown.grown}
    assert found == {
        key: SealedLeaf(leaf.seq, leaf_hash(leaf.entry)) for key, leaf in zip(keys, grown.sealed.leaves, strict=True)
    }
    assert nodes == {"nasa": {NodeCoordinate(2, 0): grown.grown.frontier.hashes[0]}}


async def test_a_head_row_that_is_not_as_it_was_locked_is_not_moved(bench: Bench, audit_database: Database) -> None:
    """Growing or signing from another size than the row's is a contradiction in our own tables: nothing is written."""
    await bench.feed([fact(n) for n in range(3)])
    (tree,) = (await _locked(audit_database)).values()
    note = SignedHead(replace(tree, signed_size=1), TreeHead("o", 3, bytes(32)), "note")
    with pytest.raises(InvariantBroken):
        async with audit_database.transaction(["nasa"]) as connection:
            await PostgresLogs(connection).publish([note])
    with pytest.raises(InvariantBroken):
        async with audit_database.transaction(["usgs"]) as connection:
            await PostgresLogs(connection).append([_of_usgs(growth(bench, Tree("nasa"), 10, 2))])

    assert await bench.check_log() == 3
    assert await bench.rows("usgs", "SELECT 1 FROM flux.audit_log") == []


def _of_usgs(one: Growth) -> Growth:
    return Growth(Tree("usgs"), one.sealed)


async def _locked(database: Database) -> dict[str, Tree]:
    async with database.transaction(["nasa"]) as connection:
        return await PostgresLogs(connection).lock(["nasa"])


async def test_only_the_transactions_agencies_are_seen_or_written(bench: Bench, audit_database: Database) -> None:
    """Row-level security: another agency's tree is not there to be locked, and none can be opened for it."""
    await bench.feed([fact(1)])
    async with audit_database.transaction(["usgs"]) as connection:
        seen = await PostgresLogs(connection).lock(["nasa"])
    with pytest.raises(IsolationViolation):
        async with audit_database.transaction(["usgs"]) as connection:
            await PostgresLogs(connection).open(["library-of-congress"])

    assert seen == {}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE flux.audit_log SET seq = 9",
        "DELETE FROM flux.audit_log",
        "TRUNCATE flux.audit_log",
        "DELETE FROM nodes",
        "UPDATE nodes SET level = 9",
        "DELETE FROM tree_heads",
    ],
)
async def test_what_is_sealed_cannot_be_changed_by_the_service_itself(
    bench: Bench, audit_database: Database, statement: str
) -> None:
    """The role may add to a log and nothing else."""
    await bench.feed([fact(1)])

    with pytest.raises(IsolationViolation):
        async with audit_database.transaction(["nasa"]) as connection:
            await connection.execute(statement)


async def test_a_held_lane_waits_for_nobody_new_and_nobody_old_holds_it(bench: Bench, audit_database: Database) -> None:
    """A Take waits until the holder has committed; afterwards the old epoch holds nothing."""
    lane = await bench.take(LANE)
    async with audit_database.transaction(["nasa"]) as connection:
        held = await PostgresLogs(connection).hold(lane)
        taking = asyncio.create_task(bench.take(LANE))
        done, _ = await asyncio.wait({taking}, timeout=0.3)
        waited = not done
    newer = await taking
    with pytest.raises(Fenced):
        async with audit_database.transaction(["nasa"]) as connection:
            await PostgresLogs(connection).hold(lane)

    assert (held.next_offset, held.watermark, waited, newer.owner_epoch) == (0, None, True, lane.owner_epoch + 1)
