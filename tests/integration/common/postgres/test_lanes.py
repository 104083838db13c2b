"""Lanes on a real PostgreSQL: one owner, one commit per Advance, and every offset accounted for."""

# ruff: noqa: PT012 - what an Advance raises depends on several statements of its block
from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Fenced, FluxError, InvariantBroken, LaneStopped
from flux_common.kernel.positions import Lane, LaneBatch, Received, TopicPartition
from flux_common.postgres.database import Database
from flux_common.postgres.lanes import PostgresLanes
from flux_common.postgres.outbox import DeadLetter
from flux_common.postgres.sqlstates import KeyContended

TP = TopicPartition("flux-internal.progress.v1", 3)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LANE = "SELECT owner_epoch, next_offset, controls, ledger_floor FROM flux_checkpoint.lanes"
LEDGER = "SELECT from_offset, to_offset, effects, duplicates, fenced, dead_letters, controls, lost"
LEDGER += " FROM flux_checkpoint.ledger ORDER BY from_offset"
EXCEPTIONS = "SELECT first_offset, last_offset, class, code, ref FROM flux_checkpoint.ledger_exceptions ORDER BY 1"

Take = Callable[..., Any]


@pytest.fixture
def lanes(checkpoint_database: Database) -> PostgresLanes:
    """The lanes of checkpoint."""
    return PostgresLanes(checkpoint_database, "checkpoint")


@pytest.fixture
def take(lanes: PostgresLanes) -> Take:
    """Take the lane, of a log that holds [10, 1000) unless told otherwise."""
    return lambda **facts: lanes.take(TP, **({"topic_id": "id-1", "log_start": 10, "log_end": 1000} | facts))


def batch(lane: Lane, *offsets: int, end: int | None = None, at: datetime | None = None) -> LaneBatch:
    """Return records at `offsets`, and where they lead."""
    records = [Received(TP.at(offset), b"k", b"v", (), at) for offset in offsets]
    return LaneBatch(lane, records, end if end is not None else offsets[-1] + 1)


async def rows(admin: Any, query: str) -> list[tuple[Any, ...]]:
    """Return what the superuser sees."""
    return [tuple(row) for row in await admin.fetch(query)]


async def test_a_lane_begins_at_the_log_start_and_each_take_is_a_new_owner(take: Take, admin: Any) -> None:
    """The first Take makes the row, the ledger begins with it; the next one raises the epoch and moves nothing."""
    first, second = await take(), await take(log_start=5)

    assert first == Lane("checkpoint", TP, "id-1", 1, 10)
    assert second == replace(first, owner_epoch=2)
    assert await rows(admin, LANE) == [(2, 10, 0, 10)]


async def test_two_takes_at_once_have_two_epochs(take: Take) -> None:
    """Also while the row is made: one of them creates it, the others take it."""
    taken = await asyncio.gather(*(take() for _ in range(6)))

    assert sorted(lane.owner_epoch for lane in taken) == [1, 2, 3, 4, 5, 6]
    assert {lane.next_offset for lane in taken} == {10}


async def test_an_advance_is_one_commit(lanes: PostgresLanes, take: Take, admin: Any, event: Any) -> None:
    """The lane, the outbox, dead letters and the ledger move together, each record booked as what it was."""
    lane = await take()
    work = batch(lane, 10, 11, 13, 14, 15, end=18)
    async with lanes.advance(work, ["nasa"]) as advance:
        advance.emit([event("t", 1), event("t", 2)])
        advance.duplicate(work.records[1], code="SEEN", ref="r-1")
        advance.fenced(work.records[2], ref="r-2")
        advance.bury(work.records[3], DeadLetter.of("nasa", work.records[3], Code.RECORD_INVALID))

    assert await rows(admin, LANE) == [(1, 18, 3, 10)]
    assert await rows(admin, LEDGER) == [(10, 18, 2, 1, 1, 1, 3, 0)]
    assert await rows(admin, EXCEPTIONS) == [
        (11, 11, "duplicate", "SEEN", "r-1"),
        (12, 12, "control", None, None),
        (13, 13, "fenced", None, "r-2"),
        (14, 14, "dead_letter", "RECORD_INVALID", None),
        (16, 17, "control", None, None),
    ]
    assert await rows(admin, "SELECT value FROM flux_checkpoint.outbox ORDER BY id") == [(b"1",), (b"2",)]
    assert await rows(admin, "SELECT agency_id, kafka_offset, code FROM flux_checkpoint.dead_letters") == [
        ("nasa", 14, "RECORD_INVALID")
    ]


async def test_an_advance_that_fails_changes_nothing(lanes: PostgresLanes, take: Take, admin: Any, event: Any) -> None:
    """Whatever its block raises, neither the lane nor anything else has moved; the owner may try again."""
    lane = await take()
    with pytest.raises(FluxError, match="mine"):
        async with lanes.advance(batch(lane, 10)) as advance:
            advance.emit([event("t", 1)])
            raise FluxError(Code.RECORD_INVALID, "mine")
    untouched = [await rows(admin, LANE), await rows(admin, LEDGER)]
    async with lanes.advance(batch(lane, 10)):
        pass

    assert untouched == [[(1, 10, 0, 10)], []]
    assert await rows(admin, LANE) == [(1, 11, 0, 10)]


async def test_a_stale_owner_touches_nothing(lanes: PostgresLanes, take: Take, admin: Any) -> None:
    """After another Take the old epoch neither advances nor ticks; the block is never entered (I2)."""
    old = await take()
    await take()
    with pytest.raises(Fenced) as fenced:
        async with lanes.advance(batch(old, 10)):
            pytest.fail("entered")
    with pytest.raises(Fenced):
        await lanes.tick(old, 20, caught_up=True)

    assert (fenced.value.code, fenced.value.context) == (Code.LANE_FENCED, {"epoch": 1})
    assert (await rows(admin, LANE), await rows(admin, LEDGER)) == ([(2, 10, 0, 10)], [])


async def test_an_owner_that_is_behind_touches_nothing(lanes: PostgresLanes, take: Take, admin: Any) -> None:
    """The same epoch with an older `next_offset` is a batch that was applied already."""
    lane = await take()
    async with lanes.advance(batch(lane, 10, 11)):
        pass
    with pytest.raises(Fenced):
        async with lanes.advance(batch(lane, 10)):
            pytest.fail("entered")

    assert await rows(admin, LEDGER) == [(10, 12, 2, 0, 0, 0, 0, 0)]


@pytest.mark.parametrize("kept", [True, False])
async def test_a_take_waits_until_an_old_owner_is_settled(
    lanes: PostgresLanes, take: Take, until: Any, admin: Any, kept: bool
) -> None:
    """Its answer is final: it comes after the old owner's commit or rollback, and says which it was."""
    lane = await take()
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def advance() -> None:
        async with lanes.advance(batch(lane, 10)):
            inside.set()
            await go_on.wait()
            if not kept:
                raise FluxError(Code.RECORD_INVALID, "mine")

    old = asyncio.create_task(advance())
    await inside.wait()
    new = asyncio.create_task(take())
    await until(lambda: admin.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))
    answered_early = new.done()
    go_on.set()
    await asyncio.gather(old, return_exceptions=True)

    assert not answered_early
    assert await new == replace(lane, owner_epoch=2, next_offset=11 if kept else 10)


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"log_start": 11}, Code.LANE_DATA_LOST),
        ({"log_end": 9, "log_start": 0}, Code.LANE_DATA_LOST),
        ({"topic_id": "id-2"}, Code.TOPIC_EXCHANGED),
    ],
)
async def test_a_lane_outside_its_log_stops(take: Take, admin: Any, facts: Any, code: Code) -> None:
    """Below the log start, above its end, or another topic under the same name: nothing is skipped, older owners end."""
    await take()
    with pytest.raises(LaneStopped) as stopped:
        await take(**facts)

    assert stopped.value.code == code
    assert await rows(admin, LANE) == [(2, 10, 0, 10)]


async def test_both_ends_of_the_log_belong_to_it(take: Take) -> None:
    """A lane that has read everything stands at the end; one whose past expired up to its offset at the start."""
    await take()

    assert (await take(log_start=10)).next_offset == (await take(log_start=0, log_end=10)).next_offset == 10


async def test_a_quiet_lane_moves_over_control_records(lanes: PostgresLanes, take: Take, admin: Any) -> None:
    """Markers and aborted records take offsets: booked as control, all of them; the owner goes on behind."""
    lane = await lanes.tick(await take(), 14, caught_up=False)
    async with lanes.advance(batch(lane, 14)):
        pass

    assert lane.next_offset == 14
    assert await rows(admin, LANE) == [(1, 15, 4, 10)]
    assert await rows(admin, LEDGER) == [(10, 14, 0, 0, 0, 0, 4, 0), (14, 15, 1, 0, 0, 0, 0, 0)]
    assert await rows(admin, EXCEPTIONS) == [(10, 13, "control", None, None)]


async def test_the_watermark_follows_the_log_and_never_goes_back(lanes: PostgresLanes, take: Take, admin: Any) -> None:
    """With records: the greatest LogAppendTime applied. Without: five seconds ago, and only when caught up."""
    watermark = "SELECT watermark FROM flux_checkpoint.lanes"
    lane = await lanes.tick(await take(), 10, caught_up=False)
    for offset, at in ((10, NOW), (11, NOW - timedelta(seconds=9)), (12, None)):
        async with lanes.advance(batch(lane, offset, at=at)):
            pass
        lane = replace(lane, next_offset=offset + 1)
    applied = await admin.fetchval(watermark)
    lane = await lanes.tick(lane, 13, caught_up=False)
    behind = await admin.fetchval(watermark)
    await lanes.tick(lane, 13, caught_up=True)
    silence = await admin.fetchval("SELECT now() - watermark FROM flux_checkpoint.lanes")

    assert applied == behind == NOW
    assert silence >= timedelta(seconds=5)
    assert await rows(admin, "SELECT count(*) FROM flux_checkpoint.ledger WHERE from_offset = 13") == [(0,)]


async def test_a_lane_never_goes_back(lanes: PostgresLanes, take: Take, admin: Any) -> None:
    """A tick to an earlier offset would read applied records again: it is refused as a contradiction."""
    lane = await lanes.tick(await take(), 20, caught_up=False)
    with pytest.raises(InvariantBroken):
        await lanes.tick(lane, 15, caught_up=False)

    assert await rows(admin, LANE) == [(1, 20, 10, 10)]


NO_BATCHES = {
    "below": ((9, 10), 11),
    "twice": ((10, 10), 11),
    "unsorted": ((11, 10), 12),
    "beyond the end": ((10, 11), 11),
    "to nowhere": ((10,), 10),
    "empty": ((), 10),
    "backwards": ((), 9),
}


async def test_a_batch_that_is_none_is_refused(lanes: PostgresLanes, take: Take, admin: Any) -> None:
    """Records below the lane, twice, out of order or beyond the end would be booked as something that they are not."""
    lane = await take()
    for why, (offsets, end) in NO_BATCHES.items():
        with pytest.raises(InvariantBroken):
            async with lanes.advance(batch(lane, *offsets, end=end)):
                pytest.fail(f"entered: {why}")

    assert (await rows(admin, LANE), await rows(admin, LEDGER)) == ([(1, 10, 0, 10)], [])


async def test_a_record_is_booked_once_and_only_if_it_is_there(lanes: PostgresLanes, take: Take, admin: Any) -> None:
    """Two classes for one record, or a class for another batch's record: a fault of ours, no poison record's."""
    lane = await take()
    for records in (batch(lane, 10).records * 2, batch(lane, 12).records):
        with pytest.raises(InvariantBroken):
            async with lanes.advance(batch(lane, 10)) as advance:
                for record in records:
                    advance.duplicate(record)

    assert await rows(admin, LANE) == [(1, 10, 0, 10)]


UNTRUE = ["2, 0, 0, 0, -1, 0", "-1, 2, 0, 0, 0, 0", "0, 0, 0, 0, 0, 0", "1, 1, 0, 0, 0, 0", "3, -2, 0, 0, 0, 0"]


async def test_the_ledger_takes_nothing_that_does_not_add_up(checkpoint_database: Database) -> None:
    """I8 as a constraint: each offset of an Advance is exactly one thing, and no count is negative."""
    for counts in UNTRUE:
        with pytest.raises(InvariantBroken) as refused:
            async with checkpoint_database.transaction() as connection:
                await connection.execute(
                    "INSERT INTO ledger (topic, kafka_partition, from_offset, to_offset, effects, duplicates, fenced,"
                    f" dead_letters, controls, lost) VALUES ('t', 0, 5, 6, {counts})"
                )

        assert refused.value.context["table"] == "ledger"


async def test_a_key_that_stays_taken_is_a_contradiction(lanes: PostgresLanes, take: Take, event: Any) -> None:
    """Twice a taken key is a race and the batch is tried again; the third time the process stops. A success forgets."""
    lane = await take()

    async def collide() -> type[FluxError]:
        with pytest.raises(FluxError) as raised:
            async with lanes.advance(batch(lane, lane.next_offset)) as advance:
                for _ in range(2):
                    await advance.connection.execute("INSERT INTO agencies (agency_id, shard) VALUES ('nasa', 1)")
        return type(raised.value)

    first = [await collide() for _ in range(2)]
    async with lanes.advance(batch(lane, 10)):
        pass
    lane = replace(lane, next_offset=11)
    second = [await collide() for _ in range(3)]

    assert first + second == [KeyContended] * 4 + [InvariantBroken]


async def test_an_accepted_loss_is_booked_as_lost(
    lanes: PostgresLanes, take: Take, admin: Any, checkpoint_database: Database
) -> None:
    """The lane goes on at the log start, older owners are fenced, and the ledger says what was lost and why."""
    old = await take()
    async with checkpoint_database.transaction() as connection:
        lost = await lanes.accept_loss(connection, TP, topic_id="id-1", log_start=15, reason="disk 7 died")
    with pytest.raises(Fenced):
        async with lanes.advance(batch(old, 10)):
            pytest.fail("entered")

    assert lost == (10, 14)
    assert (await take(log_start=15)).next_offset == 15
    assert await rows(admin, LEDGER) == [(10, 15, 0, 0, 0, 0, 0, 5)]
    assert await rows(admin, EXCEPTIONS) == [(10, 14, "lost", "LANE_DATA_LOST", "disk 7 died")]


@pytest.mark.parametrize(
    ("facts", "code"),
    [({"log_start": 10}, Code.LANE_DATA_LOST), ({"topic_id": "id-2", "log_start": 15}, Code.TOPIC_EXCHANGED)],
)
async def test_no_loss_is_accepted_where_none_is(
    lanes: PostgresLanes, take: Take, admin: Any, checkpoint_database: Database, facts: Any, code: Code
) -> None:
    """A lane inside its log has lost nothing; another topic's offsets are no range of this one."""
    await take()
    with pytest.raises(LaneStopped) as refused:
        async with checkpoint_database.transaction() as connection:
            await lanes.accept_loss(connection, TP, reason="x", **({"topic_id": "id-1"} | facts))

    assert refused.value.code == code
    assert (await rows(admin, LANE), await rows(admin, LEDGER)) == ([(1, 10, 0, 10)], [])
