"""A COMMIT whose answer is lost: the caller cannot know, and the Take after it does."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from flux_common.kernel.errors import Unavailable
from flux_common.kernel.positions import Lane, LaneBatch, Received, TopicPartition
from flux_common.postgres import database as room
from flux_common.postgres.database import Database
from flux_common.postgres.lanes import PostgresLanes

TP = TopicPartition("flux-internal.progress.v1", 0)
LOG = {"topic_id": "id", "log_start": 0, "log_end": 100}
AT_COMMIT = """
CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
$$ BEGIN PERFORM pg_advisory_lock(1); PERFORM pg_advisory_unlock(1); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON flux_checkpoint.ledger DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION public.wait();
GRANT USAGE ON SCHEMA public TO flux_checkpoint
"""


def one_record(lane: Lane) -> LaneBatch:
    """Return a batch of the lane's next record."""
    return LaneBatch(lane, [Received(TP.at(lane.next_offset), b"k", b"v")], lane.next_offset + 1)


@pytest.mark.parametrize(("cut", "committed"), [("before", False), ("after", True)])
async def test_a_lost_answer_to_commit_is_settled_by_a_take(
    open_as: Any, settings_for: Any, through: Any, wire: Any, event: Any, admin: Any, cut: str, committed: bool
) -> None:
    """Cut off at COMMIT, before or after it arrived: Unavailable both times; the lane's row says which it was."""
    database = await Database.open(through(settings_for("flux_checkpoint")), "test")
    lanes = PostgresLanes(database, "checkpoint")
    try:
        lane = await lanes.take(TP, **LOG)
        wire.cut = cut
        with pytest.raises(Unavailable):
            async with lanes.advance(one_record(lane)) as advance:
                advance.emit([event("t", 1)])
    finally:
        await database.close(grace=1)
    successor = PostgresLanes(await open_as("flux_checkpoint"), "checkpoint")
    taken = await successor.take(TP, **LOG)
    async with successor.advance(one_record(taken)) as advance:
        advance.emit([event("t", 2)])

    assert taken.next_offset == int(committed)
    assert await admin.fetchval("SELECT count(*) FROM flux_checkpoint.outbox") == (2 if committed else 1)
    assert await admin.fetchval("SELECT sum(effects) FROM flux_checkpoint.ledger") == (2 if committed else 1)


async def test_a_take_waits_for_a_commit_whose_owner_is_gone(
    open_as: Any, admin: Any, until: Any, waiting_for_advisory: Any
) -> None:
    """The old owner's client is dead while the server still commits: Take answers after that, with the moved lane."""
    await admin.execute(AT_COMMIT)
    database = await open_as("flux_checkpoint")
    lanes = PostgresLanes(database, "checkpoint")
    lane = await lanes.take(TP, **LOG)

    async def advance() -> None:
        async with lanes.advance(one_record(lane)):
            pass

    async with waiting_for_advisory() as somebody_waits:
        old = asyncio.create_task(advance())
        await until(somebody_waits)
        old.cancel()
        await asyncio.gather(old, return_exceptions=True)
        new = asyncio.create_task(lanes.take(TP, **LOG))
        await until(
            lambda: admin.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype <> 'advisory' AND NOT granted)")
        )
        answered_early = new.done()
    taken = await new

    assert (old.cancelled(), answered_early) == (True, False)
    assert (taken.owner_epoch, taken.next_offset) == (2, 1)


async def test_a_backend_that_is_killed_at_commit_has_not_committed(
    open_as: Any, admin: Any, until: Any, waiting_for_advisory: Any
) -> None:
    """The backend dies inside COMMIT: Unavailable, the Take finds the lane where it was, and the batch goes in once."""
    await admin.execute(AT_COMMIT)
    lanes = PostgresLanes(await open_as("flux_checkpoint"), "checkpoint")
    lane = await lanes.take(TP, **LOG)

    async def advance(lane: Lane) -> None:
        async with lanes.advance(one_record(lane)):
            pass

    async with waiting_for_advisory() as somebody_waits:
        old = asyncio.create_task(advance(lane))
        await until(somebody_waits)
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 1"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        with pytest.raises(Unavailable):
            await old
    taken = await lanes.take(TP, **LOG)
    await advance(taken)

    assert taken.next_offset == 0
    assert await admin.fetchval("SELECT sum(effects) FROM flux_checkpoint.ledger") == 1


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_connection_that_is_not_given_back_changes_nothing(
    settings_for: Any, through: Any, wire: Any, admin: Any, monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    """The server falls silent after COMMIT: what was committed stands and is no error; the pool goes on without it."""
    monkeypatch.setattr(room, "RELEASE_SECONDS", 0.3)
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    settings = through(settings_for("flux_checkpoint")).model_copy(update={"pool_max": 1})
    database = await Database.open(settings, "test")

    async def add(agency: str) -> None:
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO agencies (agency_id, shard) VALUES ($1, 0)", agency)

    wire.swallow = True
    first = asyncio.create_task(add("nasa"))
    await wire.swallowed.wait()
    if cancelled:
        first.cancel()
    await add("loc")
    outcome = await asyncio.gather(first, return_exceptions=True)
    await database.close(grace=1)
    gc.collect()

    assert complaints == []
    assert [type(one) for one in outcome] == [asyncio.CancelledError if cancelled else type(None)]
    assert await admin.fetchval("SELECT count(*) FROM flux_checkpoint.agencies") == 2
