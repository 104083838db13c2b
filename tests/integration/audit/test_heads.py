"""Heads and receipts on a real PostgreSQL: what is signed, in which order it leaves, and when nothing is."""

from __future__ import annotations

import asyncpg
import pytest

from flux_audit.adapters.log import PostgresLogs
from flux_audit.domain.merkle import consistency_plan
from flux_audit.domain.signing import Cadence
from flux_audit.domain.tree_head import TreeHead, log_origin
from flux_client.verifier import Trust, VerificationFailed, open_head, verify_consistency, verify_receipt
from flux_common.contracts.catalogue import RECEIPTS, TREE_HEADS
from flux_common.kernel.ids import SYSTEM_AGENCY
from flux_common.observability import metrics
from flux_devkit.plugin import Database

from .conftest import NASAS_LANE, PREFIX, Bench, Benches, KnownHeads, event_id, fact

RECEIPTS_OF_NASA = RECEIPTS.of("nasa")


async def test_every_wanted_leaf_gets_one_receipt_that_verifies_offline(bench: Bench) -> None:
    """Over batches, heads and agencies: the receipts are those that were asked for, and each proves its entry."""
    for batch in range(4):
        bench.clock.ticks += 1
        numbers = range(batch * 11, batch * 11 + 11)
        await bench.feed([fact(n, agency, receipt=n % 3 == 0) for n in numbers for agency in ("nasa", "usgs")])
    receipts = await bench.outbox(RECEIPTS_OF_NASA)
    proven = [bench.verify(receipt) for receipt in receipts]

    assert [receipt["event_id"] for receipt in receipts] == [str(event_id(n)) for n in range(44) if n % 3 == 0]
    assert [entry["refs"]["n"] for entry in proven] == [n for n in range(44) if n % 3 == 0]
    assert {receipt["tree_size"] for receipt in receipts} == {11, 22, 33, 44}
    assert len(await bench.outbox(RECEIPTS.of("usgs"))) == 15


async def test_heads_leave_before_their_receipts_and_extend_one_another(bench: Bench) -> None:
    """In the outbox a head stands before what rests on it; the last one is what the row says; sizes only grow."""
    for number in range(5):
        bench.clock.ticks += 1
        await bench.feed([fact(number)])
    async with bench.database.transaction() as connection:
        topics = [row["topic"] for row in await connection.fetch("SELECT topic FROM outbox ORDER BY id")]
    heads = await bench.outbox(TREE_HEADS.name)
    trust = Trust([bench.signer.verifier_key(log_origin(PREFIX, "nasa"))], "nasa")

    assert topics == [TREE_HEADS.name, RECEIPTS_OF_NASA] * 5
    assert [head["size"] for head in heads] == [1, 2, 3, 4, 5]
    assert [open_head(head["tree_head"].encode(), trust).root.hex() for head in heads] == [h["root"] for h in heads]
    assert await bench.signed() == TreeHead(log_origin(PREFIX, "nasa"), 5, bytes.fromhex(heads[-1]["root"]))


async def test_a_second_is_waited_for_and_a_thousand_leaves_are_not(benches: Benches) -> None:
    """Within a second of the last head nothing is signed unless enough is new; then one head covers it all."""
    bench = benches(Cadence(every_s=1.0, leaves=10))
    await bench.feed([fact(0)])
    await bench.feed([fact(n) for n in range(1, 10)])
    within = [head["size"] for head in await bench.outbox(TREE_HEADS.name)]
    await bench.feed([fact(10)])
    enough = [head["size"] for head in await bench.outbox(TREE_HEADS.name)]

    assert (within, enough) == ([1], [1, 11])
    assert len(await bench.outbox(RECEIPTS_OF_NASA)) == 11


async def test_a_long_rest_is_signed_in_steps(benches: Benches) -> None:
    """A head covers a bounded number of new leaves; each step is a true head, and every receipt verifies."""
    bench = benches(Cadence(leaves=4, leaves_max=4))
    await bench.feed([fact(n) for n in range(11)])
    for _ in range(3):
        await bench.leftovers.round()
        bench.clock.ticks += 1
    receipts = await bench.outbox(RECEIPTS_OF_NASA)

    assert [head["size"] for head in await bench.outbox(TREE_HEADS.name) if "size" in head] == [4, 8, 11]
    assert [bench.verify(receipt)["refs"]["n"] for receipt in receipts] == list(range(11))


async def test_the_reserved_log_has_heads_and_no_receipts(bench: Bench) -> None:
    """Nobody subscribes to `_system`: no event is written for a topic that does not exist."""
    await bench.feed([fact(1, SYSTEM_AGENCY)])
    async with bench.database.transaction() as connection:
        topics = [row["topic"] for row in await connection.fetch("SELECT topic FROM outbox")]

    assert topics == [TREE_HEADS.name]


async def test_a_restored_database_is_found_and_not_signed(benches: Benches) -> None:
    """The memory knows more than the database: that agency is refused, with an alarm; another one is signed."""
    bench = benches(memory=KnownHeads({"nasa": TreeHead(log_origin(PREFIX, "nasa"), 7, bytes(32))}))
    refused = metrics.signing_refused.labels("DATABASE_BEHIND_KAFKA")._value
    before = refused.get()
    await bench.feed([fact(1), fact(1, "usgs")])

    assert [head["agency_id"] for head in await bench.outbox(TREE_HEADS.name)] == ["usgs"]
    assert (await bench.check_log(), await bench.signed(), await bench.outbox(RECEIPTS_OF_NASA)) == (1, None, [])
    assert refused.get() - before == 1


async def test_a_restored_database_is_found_although_nothing_is_new(benches: Benches) -> None:
    """The timer judges every log that the memory names, even one that the restored database has never heard of."""
    bench = benches(memory=KnownHeads({"nasa": TreeHead(log_origin(PREFIX, "nasa"), 7, bytes(32))}))
    refused = metrics.signing_refused.labels("DATABASE_BEHIND_KAFKA")._value
    before = refused.get()
    await bench.take(NASAS_LANE)
    for _ in range(3):
        await bench.leftovers.round()
        bench.clock.ticks += 1

    assert refused.get() - before == 1


async def test_a_log_with_another_past_is_a_fork(benches: Benches) -> None:
    """At the remembered size our root is another: nothing is signed."""
    bench = benches()
    await bench.feed([fact(1), fact(2)])
    bench.memory.heads["nasa"] = TreeHead(log_origin(PREFIX, "nasa"), 2, bytes(32))
    bench.clock.ticks += 1
    refused = metrics.signing_refused.labels("FORK")._value
    before = refused.get()
    await bench.feed([fact(3)])

    assert [head["size"] for head in await bench.outbox(TREE_HEADS.name)] == [2]
    assert (await bench.check_log(), refused.get() - before) == (3, 1)


async def test_a_refused_log_is_judged_again_and_catches_up(benches: Benches) -> None:
    """Once the cause is gone, everything that was sealed meanwhile gets its receipt; nothing is forgotten."""
    bench = benches(memory=KnownHeads({"nasa": TreeHead(log_origin(PREFIX, "nasa"), 7, bytes(32))}))
    await bench.feed([fact(1), fact(2)])
    bench.memory.heads.clear()
    await bench.leftovers.round()
    at_once = await bench.outbox(RECEIPTS_OF_NASA)
    bench.clock.ticks += bench.unsigned.cadence.refused_s
    await bench.leftovers.round()

    assert (at_once, len(await bench.outbox(RECEIPTS_OF_NASA))) == ([], 2)


async def test_rewritten_nodes_are_not_signed(bench: Bench, database: Database) -> None:
    """Whoever owns the database can change a stored hash; the head row then contradicts it, and no head is signed."""
    await bench.feed([fact(1), fact(2)])
    owner = await asyncpg.connect(database.dsn)
    try:
        await owner.execute("UPDATE flux_audit.nodes SET hash = sha256('x') WHERE level = 1")
    finally:
        await owner.close()
    bench.clock.ticks += 1
    await bench.feed([fact(3)])

    assert [head["size"] for head in await bench.outbox(TREE_HEADS.name)] == [2]


async def test_receipts_of_one_agency_prove_nothing_to_another(bench: Bench) -> None:
    """The key's name is the log: with another agency's verifier key a receipt does not verify."""
    await bench.feed([fact(1)])
    (receipt,) = await bench.outbox(RECEIPTS_OF_NASA)
    theirs = Trust([bench.signer.verifier_key(log_origin(PREFIX, "usgs"))], "usgs")

    with pytest.raises(VerificationFailed):
        verify_receipt(receipt, theirs)


async def test_consistency_is_provable_from_the_stored_nodes(bench: Bench) -> None:
    """Between any two signed sizes the nodes in the table make a proof that the stand-alone verifier accepts."""
    for number in range(9):
        bench.clock.ticks += 1
        await bench.feed([fact(number)])
    roots = {head["size"]: bytes.fromhex(head["root"]) for head in await bench.outbox(TREE_HEADS.name)}
    async with bench.database.transaction(["nasa"]) as connection:
        for older in range(1, 9):
            plan = consistency_plan(older, 9)
            nodes = (await PostgresLogs(connection).nodes({"nasa": plan.coordinates}))["nasa"] if older < 9 else {}
            verify_consistency(older, 9, roots[older], roots[9], plan.fold(nodes))

    assert sorted(roots) == list(range(1, 10))
