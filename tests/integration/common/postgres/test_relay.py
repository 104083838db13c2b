"""The relay on a real PostgreSQL and a real Kafka: each decided event is read once, in order, whatever goes wrong."""

# ruff: noqa: PT012 - a transaction that is given up has a block
from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import InvariantBroken, Unavailable
from flux_common.observability import metrics
from flux_common.postgres.outbox import SQL, insert_outbox


async def test_events_leave_once_and_in_insert_order(bench: Any, create_topic: Any, until: Any) -> None:
    """Many transactions, three keys on three Kafka partitions: all there once, each key in order, the outbox empty."""
    topic = await create_topic("t", 3)
    bench.start()
    for number in range(0, 300, 10):
        await bench.write(*(bench.event(topic, n, key=f"k{n % 3}") for n in range(number, number + 10)))
    await until(bench.empty)
    await bench.stop()
    by_key: dict[bytes, list[int]] = {}
    for record in await bench.records(topic, 3):
        by_key.setdefault(record.key, []).append(int(record.value))

    assert by_key == {b"k%d" % k: list(range(k, 300, 3)) for k in range(3)}
    assert await bench.lease() == (300, 300)


async def test_a_row_that_becomes_visible_late_is_not_skipped(bench: Any, create_topic: Any, until: Any) -> None:
    """Identity values commit out of order: the row with the lower id leaves later, and leaves."""
    topic = await create_topic("t")
    bench.start()
    async with bench.database.transaction() as early:
        await insert_outbox(early, [bench.event(topic, 1)])
        await bench.write(bench.event(topic, 2, key="other"))
        await until(lambda: bench.one("SELECT last_cursor = 1 FROM relay_leases WHERE shard = $1", bench.shard))
    bench.wake.set()
    await until(bench.empty)
    await bench.stop()

    assert await bench.published(topic) == [2, 1]
    assert await bench.lease() == (2, 2)


async def test_gaps_in_ids_and_numbers_do_not_matter(bench: Any, create_topic: Any, until: Any) -> None:
    """Rolled-back ids, deleted rows and a number that nobody has: what is there leaves."""
    topic = await create_topic("t")
    with pytest.raises(ValueError, match="mine"):
        async with bench.database.transaction() as connection:
            await insert_outbox(connection, [bench.event(topic, n) for n in range(5)])
            raise ValueError("mine")
    await bench.write(*(bench.event(topic, n) for n in (1, 2, 3, 4)))
    await bench.one("UPDATE outbox SET number = 10 WHERE value = '1'")
    await bench.one("UPDATE outbox SET number = 13 WHERE value = '2'")
    await bench.one("DELETE FROM outbox WHERE value = '3'")
    await bench.one("UPDATE relay_leases SET relay_counter = 20, last_cursor = 0 WHERE shard = $1", bench.shard)
    bench.start()
    await until(bench.empty)
    await bench.stop()

    assert await bench.published(topic) == [1, 2, 4]
    assert await bench.lease() == (21, 21)


async def test_a_transaction_is_bounded_in_bytes_and_reads_no_more(bench: Any, create_topic: Any, until: Any) -> None:
    """Rows of 400 KiB go two at a time, whatever number waits; a row alone may be larger than the bound."""
    topic = await create_topic("t")
    await bench.write(*(bench.event(topic, n, value=b"%d" % n + b" " * 409_600) for n in range(5)))
    before = metrics.relay_transactions.labels(str(bench.shard), "committed")._value.get()
    async with bench.database.transaction() as connection:
        await connection.execute(SQL["number"], bench.shard, [], 1000)
        read = [
            len(await connection.fetch(SQL["unpublished"], bench.shard, 0, 1000, most)) for most in (10, 2**20, 2**22)
        ]
    await bench.one("UPDATE outbox SET number = NULL")
    bench.start()
    await until(bench.empty)
    await bench.stop()

    assert read == [1, 2, 5]
    assert await bench.published(topic) == [0, 1, 2, 3, 4]
    assert metrics.relay_transactions.labels(str(bench.shard), "committed")._value.get() - before == 3


async def test_no_more_is_numbered_than_one_transaction_takes(bench: Any, create_topic: Any, until: Any) -> None:
    """However often a publish fails: what must be parked behind a refused row, with numbers, stays within bounds."""
    topic = await create_topic("t")
    failures: list[int] = []

    async def failing(real: Any, events: Any, cursor: int) -> None:
        if len(failures) < 2:
            failures.append(await bench.one("SELECT count(*) FROM outbox WHERE number IS NOT NULL"))
            raise Unavailable(Code.BROKER_UNAVAILABLE, "not now")
        await real.publish(events, cursor)

    await bench.write(*(bench.event(topic, n) for n in range(2500)))
    bench.start(bench.publishing(failing))
    await until(bench.empty)
    await bench.stop()

    assert failures == [1000, 1000]
    assert await bench.published(topic) == list(range(2500))


async def test_an_unknown_outcome_is_settled_by_the_cursor(bench: Any, create_topic: Any, until: Any) -> None:
    """Publish says Unavailable though it committed, and the next time though it did not: each row is read once."""
    topic = await create_topic("t")
    outcomes = [True, False, True]

    async def doubtful(real: Any, events: Any, cursor: int) -> None:
        arrives = outcomes.pop(0) if outcomes else None
        if arrives is not False:
            await real.publish(events, cursor)
        if arrives is not None:
            raise Unavailable(Code.BROKER_UNAVAILABLE, "the answer was lost")

    await bench.write(*(bench.event(topic, n) for n in range(3)))
    bench.start(bench.publishing(doubtful))
    await until(lambda: asyncio.sleep(0, len(outcomes) == 2))
    await bench.write(*(bench.event(topic, n) for n in range(3, 6)))
    await until(bench.empty)
    await bench.write(bench.event(topic, 6))
    await until(bench.empty)
    await bench.stop()

    assert outcomes == []
    assert await bench.published(topic) == [0, 1, 2, 3, 4, 5, 6]


async def test_a_relay_outlives_its_connections(bench: Any, create_topic: Any, until: Any, admin: Any) -> None:
    """Backends killed again and again while rows leave: it begins anew, and each row is read once."""
    topic = await create_topic("t")
    bench.start()
    number = 0
    for _ in range(4):
        await bench.write(*(bench.event(topic, n) for n in range(number, number + 50)))
        number += 50
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE usename = 'flux_checkpoint' AND datname = current_database()"
        )
        await asyncio.sleep(0.1)
    await until(bench.empty)
    await bench.stop()

    assert await bench.published(topic) == list(range(number))


async def test_a_lost_cursor_topic_stops_the_relay(bench: Any) -> None:
    """Kafka knows less than the database: nothing is published, deleted or numbered; a person decides."""
    await bench.write(bench.event("t", 1))
    await bench.one("UPDATE relay_leases SET relay_counter = 5, last_cursor = 5 WHERE shard = $1", bench.shard)
    with pytest.raises(InvariantBroken) as stopped:
        await bench.start()

    assert stopped.value.code == Code.CURSOR_LOST
    assert await bench.one("SELECT count(*) FROM outbox WHERE number IS NULL") == 1
    assert await bench.one("SELECT expires_at = '-infinity' FROM relay_leases WHERE shard = $1", bench.shard)


async def test_a_database_behind_kafka_stops_the_relay(bench: Any, create_topic: Any) -> None:
    """A restored backup knows less than Kafka: rows that were published since must not be numbered over."""
    topic = await create_topic("t")
    transport = bench.transport()
    await transport.open()
    await transport.publish([bench.event(topic, 1)], 7)
    await transport.close()
    await bench.write(bench.event(topic, 2))
    await bench.one("UPDATE relay_leases SET relay_counter = 6, last_cursor = 6 WHERE shard = $1", bench.shard)
    with pytest.raises(InvariantBroken) as stopped:
        await bench.start()

    assert stopped.value.code == Code.DATABASE_BEHIND_KAFKA
    assert await bench.lease() == (6, 6)
    assert await bench.one("SELECT count(*) FROM outbox WHERE number IS NULL") == 1


async def test_what_was_published_before_the_crash_is_deleted_after_it(
    bench: Any, create_topic: Any, until: Any
) -> None:
    """Numbered rows up to the cursor have left, whoever died before deleting them; the rest has not."""
    topic = await create_topic("t")
    await bench.write(*(bench.event(topic, n) for n in (1, 2, 3)))
    async with bench.database.transaction() as connection:
        await connection.execute(SQL["number"], bench.shard, [], 2)
        await connection.execute("UPDATE relay_leases SET relay_counter = 2 WHERE shard = $1", bench.shard)
    transport = bench.transport()
    await transport.open()
    await transport.publish([bench.event(topic, 1), bench.event(topic, 2)], 2)
    await transport.close()
    bench.start()
    await until(bench.empty)
    await bench.stop()

    assert await bench.published(topic) == [1, 2, 3]
    assert await bench.lease() == (3, 3)
