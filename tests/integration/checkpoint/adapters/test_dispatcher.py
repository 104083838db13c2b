"""What a dispatcher reads and writes in PostgreSQL: leases, agenda, facts of a pass, ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from flux_checkpoint.adapters.dispatcher import Leases, PostgresDispatch
from flux_checkpoint.adapters.runs import PostgresRuns
from flux_checkpoint.domain.dispatch import DUE_PAGE, Patience, Tally
from flux_checkpoint.domain.model import COUNT_MAX, Counts, RunKey
from flux_checkpoint.ports import Admission, Ending
from flux_common.kernel.errors import Fenced
from flux_common.kernel.ids import shard_of
from flux_common.postgres.database import Connection, Database

RUN = RunKey("nasa", UUID(int=1))
SHARD = shard_of("nasa")


async def admit(connection: Connection, *numbers: int) -> None:
    """Admit runs by number."""
    now = await connection.fetchval("SELECT now()")
    rows = [
        Admission("nasa", UUID(int=n), f"r-{n}", '{"a": 1}', b"s" * 32, 9, 9, None, 0, n, now, now + timedelta(days=1))
        for n in numbers
    ]
    await PostgresRuns(connection).insert_agencies(["nasa"])
    await PostgresRuns(connection).insert_runs(rows)
    await PostgresRuns(connection).put_on_agenda([RunKey("nasa", row.run_id) for row in rows])


@pytest.fixture
async def connection(checkpoint_database: Database) -> AsyncIterator[Connection]:
    """A transaction in which one run is admitted."""
    async with checkpoint_database.transaction(["nasa"]) as opened:
        await admit(opened, 1)
        yield opened


async def gathered(connection: Connection, patience: Patience | None = None) -> Any:
    """Return the facts of a pass over the run."""
    run = (await PostgresRuns(connection).lock_runs([RUN]))[RUN]
    store = PostgresDispatch(connection, patience or Patience())
    return await store.gather(run, await connection.fetchval("SELECT now()"))


async def test_a_pass_holds_the_lease_under_its_term_or_is_fenced(checkpoint_database: Database) -> None:
    """`hold` renews the lease and tells the database's time; another term is another's."""
    leases = Leases(checkpoint_database, "a", 60)
    term = await leases.acquire(SHARD)
    assert term is not None
    async with checkpoint_database.transaction(["nasa"]) as connection:
        store = PostgresDispatch(connection, Patience())
        now = await store.hold(SHARD, term, 60)
        assert now == await connection.fetchval("SELECT now()")
        assert await connection.fetchval("SELECT expires_at FROM dispatcher_leases WHERE shard = $1", SHARD) == (
            now + timedelta(seconds=60)
        )
    with pytest.raises(Fenced):
        async with checkpoint_database.transaction(["nasa"]) as connection:
            await PostgresDispatch(connection, Patience()).hold(SHARD, term - 1, 60)


async def test_each_shard_has_a_lease_of_its_own(checkpoint_database: Database) -> None:
    """Holding one says nothing of the others."""
    first, second = Leases(checkpoint_database, "a", 60), Leases(checkpoint_database, "b", 60)
    await first.acquire(0)

    assert await second.acquire(0) is None
    assert await second.acquire(1) is not None


async def test_what_is_due_comes_in_its_order_and_from_its_shard(checkpoint_database: Database) -> None:
    """The longest overdue first, a page at a time, nothing of the future and nothing of other shards."""
    async with checkpoint_database.transaction(["nasa"]) as connection:
        await admit(connection, 1, 2, 3, 4)
        for number, ago in ((1, 10), (2, 30), (3, 20), (4, -60)):
            await connection.execute(
                "UPDATE agenda SET due_at = now() - make_interval(secs => $2) WHERE run_id = $1", UUID(int=number), ago
            )
    leases = Leases(checkpoint_database, "a")

    assert [key.run_id.int for key in await leases.due(SHARD, 10)] == [2, 3, 1]
    assert [key.run_id.int for key in await leases.due(SHARD, 2)] == [2, 3]
    assert await leases.due((SHARD + 1) % 4, 10) == []


async def test_a_run_is_looked_at_when_it_is_said_or_never_again(connection: Connection) -> None:
    """`look_again` moves its place on the agenda; None takes it off."""
    store = PostgresDispatch(connection, Patience())
    at = await connection.fetchval("SELECT now() + interval '5 s'")
    await store.look_again(RUN, at)
    moved = await connection.fetchval("SELECT due_at FROM agenda")
    await store.look_again(RUN, None)

    assert moved == at
    assert await connection.fetchval("SELECT count(*) FROM agenda") == 0


async def test_a_new_run_has_nothing_to_tell(connection: Connection) -> None:
    """No items: no tallies, zero totals, nothing due."""
    facts = await gathered(connection)

    assert (facts.tallies, facts.totals, facts.due, facts.stalled, facts.corrupt) == ({}, Counts(), [], [], [])
    assert (facts.failed, facts.agency_in_hand, facts.next_due, facts.manifest_digest) == (None, 0, None, None)


async def test_items_are_made_once(connection: Connection) -> None:
    """The same page again changes nothing: a pass may be repeated."""
    store = PostgresDispatch(connection, Patience())
    await store.make_items(RUN, "extract", [(0, 0, 6), (1, 6, 4)])
    await store.make_items(RUN, "extract", [(1, 99, 99), (2, 10, 1)])
    rows = await connection.fetch("SELECT number, first_object, object_count FROM flux.checkpoints ORDER BY number")

    assert [tuple(row) for row in rows] == [(0, 0, 6), (1, 6, 4), (2, 10, 1)]
    assert (await gathered(connection)).tally("extract") == Tally(pending=3)


async def test_due_items_come_by_page_steps_first_and_not_before_their_time(connection: Connection) -> None:
    """A page is at most `DUE_PAGE`; who waits is told by `next_due`."""
    store = PostgresDispatch(connection, Patience())
    await store.make_items(RUN, "extract", [(n, n, 1) for n in range(DUE_PAGE + 5)])
    await store.make_items(RUN, "plan", [(0, 0, 0)])
    await connection.execute("UPDATE flux.checkpoints SET not_before = now() + interval '9 s' WHERE number = 3")
    facts = await gathered(connection)

    assert len(facts.due) == DUE_PAGE
    assert [str(item.key).split("/", 1)[1] for item in facts.due[:5]] == [
        "plan/0", "extract/0", "extract/1", "extract/2", "extract/4",
    ]  # fmt: skip
    assert facts.next_due == await connection.fetchval("SELECT now() + interval '9 s'")


async def test_tallies_count_each_kind_and_state(connection: Connection) -> None:
    """And the totals are those of the partitions alone."""
    store = PostgresDispatch(connection, Patience())
    await store.make_items(RUN, "extract", [(n, n, 5) for n in range(5)])
    for number, state in enumerate(("DISPATCHED", "RUNNING", "FAILED")):
        await connection.execute(
            "UPDATE flux.checkpoints SET state = $2, term = 1, cursor = 2, read = 2, written = 1, rejected = 1, bytes_in = 7"
            " WHERE number = $1",
            number,
            state,
        )
    facts = await gathered(connection)

    assert facts.tally("extract") == Tally(pending=2, dispatched=1, running=1, failed=1)
    assert (facts.totals, facts.agency_in_hand) == (Counts(6, 3, 3, 21, 0), 2)
    assert facts.failed is not None
    assert facts.failed.key.number == 2


async def test_sums_of_bytes_stand_still_at_the_largest_that_json_can_say(connection: Connection) -> None:
    """Beyond a bigint, too: a pass must be able to fail such a run."""
    store = PostgresDispatch(connection, Patience())
    await store.make_items(RUN, "extract", [(n, n, 1) for n in range(1100)])
    await connection.execute("UPDATE flux.checkpoints SET bytes_in = $1, bytes_out = 1", COUNT_MAX)
    facts = await gathered(connection)

    assert (facts.totals.bytes_in, facts.totals.bytes_out) == (COUNT_MAX, 1100)


async def test_heads_come_in_pages_of_finished_partitions(connection: Connection) -> None:
    """In order of their numbers, from the one asked for."""
    store = PostgresDispatch(connection, Patience())
    await store.make_items(RUN, "extract", [(n, n, 1) for n in range(5)])
    await store.make_items(RUN, "gather", [(0, 0, 0), (1, 0, 0)])
    await connection.execute(
        "UPDATE flux.checkpoints SET state = 'FINISHED', term = 1, last_seq = number + 1, cursor = 1, read = 1, written = 1,"
        " chain_head = decode(lpad(to_hex(number), 64, '0'), 'hex') WHERE kind = 'extract' AND number <> 1"
    )
    await connection.execute(
        "UPDATE flux.checkpoints SET state = 'FINISHED', term = 1, result_digest = $1 WHERE kind = 'gather' AND number = 1",
        b"g" * 32,
    )

    assert [(number, seq) for number, seq, _ in await store.heads(RUN, 0, 3)] == [(0, 1), (2, 3), (3, 4)]
    assert [(number, head[-1]) for number, _, head in await store.heads(RUN, 3, 3)] == [(3, 3), (4, 4)]
    assert await store.indexes(RUN) == [(1, b"g" * 32)]


async def test_rejects_are_added_up_by_code(connection: Connection) -> None:
    """Over all partitions of the run."""
    store = PostgresDispatch(connection, Patience())
    await store.make_items(RUN, "extract", [(0, 0, 9), (1, 9, 9)])
    await connection.execute("""UPDATE flux.checkpoints SET rejects = '{"A_1": 2}' WHERE number = 0""")
    await connection.execute("""UPDATE flux.checkpoints SET rejects = '{"A_1": 3, "B_1": 1}' WHERE number = 1""")

    assert await store.rejects_by_code(RUN) == {"A_1": 5, "B_1": 1}


async def test_request_and_ending_are_the_runs(connection: Connection) -> None:
    """The request as it was admitted; of the manifest nothing, until there is one."""
    store = PostgresDispatch(connection, Patience())

    assert await store.request(RUN) == {"a": 1}
    assert await store.ending(RUN) == Ending(None, None, None, None)


async def test_an_attempt_ends_once_and_lets_go_of_what_it_held(connection: Connection) -> None:
    """The second end of an attempt is none; items in hand go back under a new term, the others stay."""
    store = PostgresDispatch(connection, Patience())
    await store.make_items(RUN, "extract", [(n, n, 1) for n in range(4)])
    for number, state in enumerate(("DISPATCHED", "RUNNING", "FAILED")):
        await connection.execute(
            "UPDATE flux.checkpoints SET state = $2, term = 3, worker = 'w', last_heard = now() WHERE number = $1",
            number,
            state,
        )
    args = (RUN, "FAILED", "input", "X_1", Counts(), timedelta(days=1))
    first, second = await store.end_run(*args), await store.end_run(*args)
    rows = await connection.fetch("SELECT state, term, worker FROM flux.checkpoints ORDER BY number")

    assert first == await connection.fetchval("SELECT ended_at FROM flux.runs")
    assert second is None
    assert [tuple(row) for row in rows] == [
        ("PENDING", 4, None), ("PENDING", 4, None), ("FAILED", 3, "w"), ("PENDING", 0, None),
    ]  # fmt: skip
    assert (await gathered(connection)).agency_in_hand == 0


async def test_open_runs_are_counted_by_state(checkpoint_database: Database) -> None:
    """What has ended is not open."""
    async with checkpoint_database.transaction(["nasa"]) as connection:
        await admit(connection, 1, 2, 3)
        await connection.execute("UPDATE flux.runs SET state = 'RUNNING' WHERE run_id = $1", UUID(int=2))
        await PostgresDispatch(connection, Patience()).end_run(
            RunKey("nasa", UUID(int=3)), "CANCELLED", None, None, Counts(), timedelta(days=1)
        )
    found = await Leases(checkpoint_database, "a").open_runs()

    assert {state: one.count for state, one in found.items()} == {"ADMITTED": 1, "RUNNING": 1}
