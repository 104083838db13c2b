"""Runs and items in PostgreSQL: what is written is what is read, in the lock order, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from flux_checkpoint.adapters.runs import PostgresRuns
from flux_checkpoint.domain.model import Counts, Finished, ItemKey, Planned, RunKey, Slice
from flux_checkpoint.domain.states import ItemState, RunState
from flux_checkpoint.ports import Admission, HashRow, HistoryRow
from flux_common.kernel.errors import IsolationViolation, RunBroken
from flux_common.kernel.ids import shard_of
from flux_common.postgres.database import Connection, Database
from flux_common.postgres.sqlstates import RecordRefused

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AGENCIES = ["esa", "nasa"]
RUN = RunKey("nasa", UUID(int=1))
KEY = ItemKey("nasa", UUID(int=1), "extract", 0)


def an_admission(number: int = 1, agency: str = "nasa", **changes: Any) -> Admission:
    admission = Admission(
        agency, UUID(int=number), f"r-{number}", '{"on_reject": {"policy": "fail", "ratio_max": 0.5}}', b"s" * 32, 3, 5,
        "00-a", 0, number, NOW, NOW + timedelta(days=1),
    )  # fmt: skip
    return replace(admission, **changes)


@pytest.fixture
async def connection(checkpoint_database: Database) -> AsyncIterator[Connection]:
    """A transaction of both agencies in which one run with one partition is there."""
    async with checkpoint_database.transaction(AGENCIES) as opened:
        await PostgresRuns(opened).insert_agencies(["nasa"])
        await PostgresRuns(opened).insert_runs([an_admission()])
        await opened.execute(
            "INSERT INTO flux.checkpoints (agency_id, run_id, kind, number, state, object_count, not_before)"
            " VALUES ('nasa', $1, 'extract', 0, 'PENDING', 10, $2)",
            RUN.run_id,
            NOW,
        )
        yield opened


async def test_a_run_is_inserted_once(connection: Connection) -> None:
    """Twins in one call, the same run again, the same request under another id: only what is new is returned."""
    store = PostgresRuns(connection)
    made = await store.insert_runs([an_admission(2), an_admission(2, kafka_offset=9), an_admission(1)])
    other_id = await store.insert_runs([an_admission(3, request_id="r-1")])
    kept = await connection.fetchval("SELECT kafka_offset FROM flux.runs WHERE run_id = $1", UUID(int=2))

    assert (made, other_id, kept) == ({RunKey("nasa", UUID(int=2))}, set(), 2)
    assert [tuple(row) for row in await connection.fetch("SELECT * FROM agencies")] == [("nasa", shard_of("nasa"))]


async def test_a_run_is_read_as_it_was_admitted(connection: Connection) -> None:
    """State ADMITTED, attempt 1, and what judging needs of the request."""
    run = (await PostgresRuns(connection).lock_runs([RUN]))[RUN]

    assert (run.state, run.run_attempt, run.run_window, run.agency_window) == (RunState.ADMITTED, 1, 3, 5)
    assert (run.on_reject, run.ratio_max, run.deadline, run.traceparent) == (
        "fail",
        0.5,
        NOW + timedelta(days=1),
        "00-a",
    )


async def test_what_is_saved_is_what_is_read(connection: Connection) -> None:
    """A run and an item with every member changed come back equal."""
    store = PostgresRuns(connection)
    run = replace(
        (await store.lock_runs([RUN]))[RUN],
        state=RunState.CANCELLING, run_attempt=2, pause_wanted=True, cancel_command_id="c", cancel_deadline=NOW,
        broken_code="RECORD_INVALID", plan_digest=b"p" * 32, transform_version="v", objects=10, partitions=1,
        partitions_made=1, objects_made=10, deadline=NOW,
    )  # fmt: skip
    item = replace(
        (await store.lock_items([KEY]))[KEY],
        state=ItemState.RUNNING, term=4, attempt=2, not_before=NOW, last_seq=2, cursor=6, chain_head=b"h" * 32,
        result_digest=b"r" * 32, counts=Counts(6, 4, 2, 2**53 - 1, 5), rejects={"A_1": 2}, failure_code="X_1",
        failure_cause="input", worker="w", last_heard=NOW, last_slice=NOW, kafka_partition=3,
    )  # fmt: skip
    await store.save_runs([run])
    await store.save_items([item])

    assert await store.lock_runs([RUN]) == {RUN: run}
    assert await store.lock_items([KEY]) == {KEY: item}


async def test_an_items_time_to_wait_stays_where_none_is_named(connection: Connection) -> None:
    """`not_before` is moved by a failure alone; a dispatch stamps its own time."""
    store = PostgresRuns(connection)
    item = (await store.lock_items([KEY]))[KEY]
    await store.save_items([replace(item, not_before=None, state=ItemState.DISPATCHED, term=1)])
    after = (await store.lock_items([KEY]))[KEY]

    assert (after.not_before, item.dispatched_at) == (item.not_before, None)
    assert after.dispatched_at == await connection.fetchval("SELECT now()")


async def test_retry_takes_the_end_back(connection: Connection) -> None:
    """A run that is saved as open again has no cause, no code and no end."""
    await connection.execute(
        "UPDATE flux.runs SET state = 'FAILED', cause = 'input', code = 'X', ended_at = now(), terminal_attempt = 1"
    )
    store = PostgresRuns(connection)
    run = (await store.lock_runs([RUN]))[RUN]
    await store.save_runs([replace(run, state=RunState.RUNNING, run_attempt=2)])

    assert tuple(await connection.fetchrow("SELECT cause, code, ended_at FROM flux.runs") or ()) == (None, None, None)


async def test_plan_and_manifest_are_kept(connection: Connection) -> None:
    """The cut of a plan and the place of the manifest stand with the run."""
    store = PostgresRuns(connection)
    await store.save_plan(RUN, Planned(b"p" * 32, 5, 99, (2, 3), "v"))
    await store.save_manifest(RUN, Finished(0, None, b"m" * 32, "file:///m", 2, 8))
    row = await connection.fetchrow(
        "SELECT partition_objects, bytes_planned, manifest_uri, manifest_digest, manifest_files, manifest_rows FROM flux.runs"
    )

    assert tuple(row or ()) == ([2, 3], 99, "file:///m", b"m" * 32, 2, 8)


async def test_history_keeps_its_order(connection: Connection) -> None:
    """Lines get their numbers in the order in which they were told, whatever their keys."""
    lines = [HistoryRow(RUN, None, None, None, f"t-{n}", None, "dispatcher") for n in (3, 1, 2)]
    await PostgresRuns(connection).add_history(lines)
    rows = await connection.fetch("SELECT type FROM flux.checkpoint_events ORDER BY event_no")

    assert [row["type"] for row in rows] == ["t-3", "t-1", "t-2"]


def a_link(seq: int, hash_: bytes = b"h") -> HashRow:
    return HashRow(KEY, Slice(seq, hash_ * 32, b"p" * 32, seq, Counts(1, 1), {}), 0, seq)


async def test_links_are_appended_once_and_found_by_their_seq(connection: Connection) -> None:
    """A link that is there already is no race, since its item is locked: its run is broken."""
    store = PostgresRuns(connection)
    await store.add_hashes([a_link(1), a_link(2, b"i")])
    found = await store.digests([(KEY, 1), (KEY, 2), (KEY, 3), (KEY, 1)])
    with pytest.raises(RunBroken) as caught:
        await store.add_hashes([a_link(3), a_link(2, b"j")])

    assert found == {(KEY, 1): b"h" * 32, (KEY, 2): b"i" * 32}
    assert caught.value.context == {"agency_id": "nasa", "run_id": str(RUN.run_id)}


async def test_a_run_stands_on_the_agenda_once_and_only_earlier(connection: Connection) -> None:
    """Whoever wants it looked at sooner is heard; nobody puts it off."""
    store = PostgresRuns(connection)
    await store.put_on_agenda([RUN, RUN])
    await connection.execute("UPDATE agenda SET due_at = $1", NOW)
    await store.put_on_agenda([RUN])
    early = await connection.fetch("SELECT shard, due_at FROM agenda")
    await connection.execute("UPDATE agenda SET due_at = 'infinity'")
    await store.put_on_agenda([RUN])

    assert [tuple(row) for row in early] == [(shard_of("nasa"), NOW)]
    assert await connection.fetchval("SELECT due_at = now() FROM agenda")


async def test_items_are_found_by_state(connection: Connection) -> None:
    """Only the run's own, only in these states."""
    store = PostgresRuns(connection)

    assert [item.key for item in await store.items_in(RUN, [ItemState.PENDING, ItemState.FAILED])] == [KEY]
    assert await store.items_in(RUN, [ItemState.FINISHED]) == []
    assert await store.items_in(replace(RUN, agency_id="esa"), list(ItemState)) == []


async def test_nothing_asked_is_nothing_done(connection: Connection) -> None:
    """Empty batches cost no statement that could fail."""
    store = PostgresRuns(connection)
    await store.save_runs([])
    await store.save_items([])
    await store.add_hashes([])
    await store.add_history([])
    await store.put_on_agenda([])

    assert (await store.lock_runs([]), await store.lock_items([]), await store.digests([])) == ({}, {}, {})


async def test_rows_that_break_a_rule_are_refused(checkpoint_database: Database) -> None:
    """I9 in the database: counts that do not balance, a cursor beyond the range, a run in an unknown state."""
    wrong = [
        "UPDATE flux.checkpoints SET read = 1",
        "UPDATE flux.checkpoints SET cursor = 11, read = 11, written = 11",
        "UPDATE flux.checkpoints SET state = 'FINISHED', term = 1",
        "UPDATE flux.checkpoints SET state = 'DISPATCHED'",
        "UPDATE flux.runs SET state = 'LOST'",
        "UPDATE flux.runs SET terminal_attempt = 1",
        "UPDATE flux.runs SET state = 'FAILED', terminal_attempt = 1",
        "UPDATE flux.runs SET state = 'COMPLETED', terminal_attempt = 1",
    ]
    async with checkpoint_database.transaction(AGENCIES) as connection:
        await PostgresRuns(connection).insert_runs([an_admission()])
        await connection.execute(
            "INSERT INTO flux.checkpoints (agency_id, run_id, kind, number, state, object_count)"
            " VALUES ('nasa', $1, 'extract', 0, 'PENDING', 10)",
            RUN.run_id,
        )
    for statement in wrong:
        with pytest.raises(RecordRefused):
            async with checkpoint_database.transaction(AGENCIES) as connection:
                await connection.execute(statement)


async def test_another_agencys_run_can_be_neither_seen_nor_made(checkpoint_database: Database) -> None:
    """Row-level security: the transaction's agencies bound what the store can do."""
    async with checkpoint_database.transaction(["nasa"]) as connection:
        await PostgresRuns(connection).insert_runs([an_admission()])
    async with checkpoint_database.transaction(["esa"]) as connection:
        assert await PostgresRuns(connection).lock_runs([RUN]) == {}
    with pytest.raises(IsolationViolation):
        async with checkpoint_database.transaction(["esa"]) as connection:
            await PostgresRuns(connection).insert_runs([an_admission(2)])


async def test_runs_are_locked_until_the_transaction_ends(checkpoint_database: Database) -> None:
    """A second transaction gets the rows when the first is done, in the state in which it left them."""
    async with checkpoint_database.transaction(AGENCIES) as connection:
        await PostgresRuns(connection).insert_runs([an_admission(1), an_admission(2)])

    async def seen() -> list[Any]:
        async with checkpoint_database.transaction(AGENCIES) as late:
            runs = await PostgresRuns(late).lock_runs([RunKey("nasa", UUID(int=2)), RUN])
        return [run.pause_wanted for run in runs.values()]

    async with checkpoint_database.transaction(AGENCIES) as connection:
        store = PostgresRuns(connection)
        run = (await store.lock_runs([RUN]))[RUN]
        waiting = asyncio.create_task(seen())
        await asyncio.wait([waiting], timeout=0.2)
        pending = not waiting.done()
        await store.save_runs([replace(run, pause_wanted=True)])

    assert pending
    assert await waiting == [True, False]
