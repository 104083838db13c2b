"""The outbox: events are written with what decides them, in their order, and come out as they went in."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from flux_common.contracts.envelope import Outgoing
from flux_common.kernel.codes import Code
from flux_common.kernel.ids import SYSTEM_AGENCY, shard_of
from flux_common.kernel.positions import Received, TopicPartition
from flux_common.postgres.database import Database
from flux_common.postgres.outbox import (
    VALUE_BYTES_MAX,
    DeadLetter,
    insert_dead_letters,
    insert_outbox,
    outgoing_of,
    release_parked,
)
from flux_common.postgres.sqlstates import KeyContended, RecordRefused

PARK = """
WITH moved AS (DELETE FROM outbox WHERE topic = $1 RETURNING *)
INSERT INTO outbox_parked (id, shard, agency_id, event_id, topic, kafka_partition, key, headers, value, written_at, code)
SELECT id, shard, agency_id, event_id, topic, kafka_partition, key, headers, value, written_at, 'X' FROM moved
"""


async def test_events_come_out_as_they_went_in(checkpoint_database: Database) -> None:
    """Topic, key (or none), id, headers in their order, bytes, agency and the Kafka partition they ask for."""
    sent = [
        Outgoing("t", "ключ", str(UUID(int=1)), [("b", "é".encode()), ("a", b""), ("a", b"2")], b"\x00\xff", "nasa"),
        Outgoing("t", None, str(UUID(int=2)), [], b"", "nasa", kafka_partition=0),
        Outgoing(
            "u", "", str(UUID(int=3)), [("ce_id", b"3")], b"x" * VALUE_BYTES_MAX, SYSTEM_AGENCY, kafka_partition=5
        ),
    ]
    async with checkpoint_database.transaction() as connection:
        await insert_outbox(connection, sent)
        rows = await connection.fetch("SELECT * FROM outbox ORDER BY id")

    assert [outgoing_of(row) for row in rows] == sent
    assert [row["shard"] for row in rows] == [shard_of(event.agency_id) for event in sent]
    assert {row["number"] for row in rows} == {None}


async def test_insert_order_is_the_order_of_the_list(checkpoint_database: Database, event: Any) -> None:
    """Within one statement, and from one transaction to the next."""
    async with checkpoint_database.transaction() as connection:
        await insert_outbox(connection, [event("t", number) for number in (5, 1, 4)])
        await insert_outbox(connection, [event("t", number) for number in range(100, 300)])
    async with checkpoint_database.transaction() as connection:
        await insert_outbox(connection, [event("t", 2)])
        await insert_outbox(connection, [])
        rows = await connection.fetch("SELECT value FROM outbox ORDER BY id")

    assert [int(row["value"]) for row in rows] == [5, 1, 4, *range(100, 300), 2]


async def test_an_event_that_is_too_large_is_the_records_fault(checkpoint_database: Database, event: Any) -> None:
    """512 KiB is the limit; the transaction that wants to write more is refused as a whole."""
    with pytest.raises(RecordRefused):
        async with checkpoint_database.transaction() as connection:
            await insert_outbox(connection, [event("t", 1), event("t", 2, value=b"x" * (VALUE_BYTES_MAX + 1))])
    async with checkpoint_database.transaction() as connection:
        left = await connection.fetchval("SELECT count(*) FROM outbox")

    assert left == 0


async def test_dead_letters_keep_the_place_and_the_digest_and_no_byte(
    checkpoint_database: Database, admin: Any
) -> None:
    """One row a position; a tombstone has the digest of nothing. The same position twice is a taken key."""
    tp = TopicPartition("t", 1)
    records = [Received(tp.at(offset), b"k", value) for offset, value in ((7, b"secret"), (3, None))]
    letters = [DeadLetter.of("nasa", record, Code.RECORD_INVALID) for record in records]
    async with checkpoint_database.transaction() as connection:
        await insert_dead_letters(connection, letters)
        await insert_dead_letters(connection, [])
    with pytest.raises(KeyContended):
        async with checkpoint_database.transaction() as connection:
            await insert_dead_letters(connection, letters[:1])
    rows = await admin.fetch("SELECT * FROM flux_checkpoint.dead_letters ORDER BY kafka_offset")

    assert [(row["kafka_offset"], row["code"]) for row in rows] == [(3, "RECORD_INVALID"), (7, "RECORD_INVALID")]
    assert rows[0]["sha256"].hex().startswith("e3b0c442")
    assert b"secret" not in b"".join(value for row in rows for value in row.values() if isinstance(value, bytes))


async def test_parked_events_return_in_their_old_order(checkpoint_database: Database, event: Any) -> None:
    """Released rows keep their ids, so they stand before what was decided after them; other topics stay where they are."""
    async with checkpoint_database.transaction() as connection:
        await insert_outbox(connection, [event("bad", 1), event("good", 2), event("worse", 3), event("bad", 4)])
        await connection.execute(PARK, "bad")
        await connection.execute(PARK, "worse")
        await insert_outbox(connection, [event("bad", 5)])
        released = [await release_parked(connection, "bad"), await release_parked(connection, "bad")]
        rows = await connection.fetch("SELECT value FROM outbox ORDER BY id")
        parked = await connection.fetch("SELECT value FROM outbox_parked")

    assert released == [2, 0]
    assert [int(row["value"]) for row in rows] == [1, 2, 4, 5]
    assert [int(row["value"]) for row in parked] == [3]
