"""What the broker refuses is set aside with what follows it on its topic; nobody else waits for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flux_common.kafka import publisher
from flux_common.kernel.codes import Code
from flux_common.postgres.outbox import SQL, insert_outbox, release_parked


@pytest.fixture(autouse=True)
def _no_new_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing topic is missing: nobody waits for metadata of one that was created just now."""
    monkeypatch.setattr(publisher, "METADATA_LAG_SECONDS", 0.3)


PARKED = "SELECT array_agg(convert_from(value, 'UTF8')::int ORDER BY id) FROM outbox_parked"
CODES = "SELECT array_agg(code ORDER BY id) FROM outbox_parked"


async def test_a_refused_row_is_parked_and_other_topics_go_on(bench: Any, create_topic: Any, until: Any) -> None:
    """Rows before, between and behind refused ones, of two bad topics in one batch, and rows decided later."""
    topic = await create_topic("t")
    await bench.write(
        *(bench.event(name, n) for n, name in enumerate([topic, "bad", topic, "worse", "bad", topic, "worse"]))
    )
    bench.start()
    await until(bench.empty)
    await bench.write(bench.event("bad", 7), bench.event(topic, 8))
    await until(bench.empty)
    await bench.stop()

    assert await bench.published(topic) == [0, 2, 5, 8]
    assert await bench.one(PARKED) == [1, 3, 4, 6, 7]
    assert await bench.one(CODES) == ["TOPIC_MISSING", "TOPIC_MISSING", "TOPIC_PARKED", "TOPIC_PARKED", "TOPIC_PARKED"]


async def test_released_rows_leave_in_their_old_order(bench: Any, create_topic: Any, until: Any) -> None:
    """Parked over several rounds and a change of the relay; after the release all leave in insert order, once."""
    topic = await create_topic("t")
    bench.start()
    for number in range(0, 12, 3):
        await bench.write(bench.event("late", number), bench.event(topic, number + 1), bench.event("late", number + 2))
        await until(bench.empty)
    await bench.stop()
    await create_topic("late")
    async with bench.database.transaction() as connection:
        released = await release_parked(connection, "late")
        await insert_outbox(connection, [bench.event("late", 12)])
    bench.start()
    await until(bench.empty)
    await bench.stop()

    assert released == 8
    assert await bench.published("late") == [0, 2, 3, 5, 6, 8, 9, 11, 12]
    assert await bench.published(topic) == [1, 4, 7, 10]
    assert await bench.one("SELECT count(*) FROM outbox_parked") == 0


async def test_a_release_that_was_too_early_parks_again(bench: Any, create_topic: Any, until: Any) -> None:
    """The topic is still missing: the rows go back to where they were, in their order."""
    await bench.write(*(bench.event("late", n) for n in range(3)))
    bench.start()
    await until(bench.empty)
    async with bench.database.transaction() as connection:
        await release_parked(connection, "late")
    await bench.write(bench.event("late", 3))
    await until(bench.empty)
    await bench.stop()
    await create_topic("late")
    async with bench.database.transaction() as connection:
        await release_parked(connection, "late")
    bench.start()
    await until(bench.empty)
    await bench.stop()

    assert await bench.published("late") == [0, 1, 2, 3]


async def test_a_row_too_large_for_its_topic_is_parked_alone_with_its_followers(
    bench: Any, create_topic: Any, until: Any
) -> None:
    """Rows before it on its topic leave; the ones behind it do not overtake it."""
    small = await create_topic("small", max_message_bytes="2000")
    await bench.write(
        bench.event(small, 0), bench.event(small, 1, value=b"%05000d" % 1), bench.event(small, 2), bench.event(small, 3)
    )
    bench.start()
    await until(bench.empty)
    await bench.stop()

    assert await bench.published(small) == [0]
    assert await bench.one(PARKED) == [1, 2, 3]
    assert await bench.one(CODES) == ["TOO_LARGE", "TOPIC_PARKED", "TOPIC_PARKED"]


async def test_very_many_rows_behind_a_refused_one_hold_nobody(bench: Any, create_topic: Any, until: Any) -> None:
    """A hundred thousand, gathered in an outage: parked in pieces, while what is behind them on another topic leaves."""
    topic = await create_topic("t")
    await bench.write(bench.event("bad", 1))
    await bench.one(
        "INSERT INTO outbox (shard, agency_id, event_id, topic, key, headers, value)"
        " SELECT $1, 'nasa', gen_random_uuid(), 'bad', 'k', '[]', '2' FROM generate_series(1, 100000)",
        bench.shard,
    )
    await bench.write(bench.event(topic, 3))
    bench.start()
    await until(lambda: bench.one("SELECT NOT EXISTS (SELECT FROM outbox WHERE topic = $1)", topic), 60)
    left = await bench.one("SELECT count(*) FROM outbox")
    await until(bench.empty, 60)
    await bench.stop()
    async with bench.database.transaction() as connection:
        released = await release_parked(connection, "bad")

    assert await bench.published(topic) == [3]
    assert left > 0
    assert released == 100_001


async def test_a_row_that_appears_while_its_topic_is_parked_does_not_overtake(
    bench: Any, admin: Any, until: Any, waiting_for_advisory: Any
) -> None:
    """It becomes visible after the followers were parked and before the numbering of the same round: it gets no number."""
    await admin.execute("""
        CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
        $$ BEGIN PERFORM pg_advisory_lock(1); PERFORM pg_advisory_unlock(1); RETURN NULL; END $$;
        CREATE TRIGGER parked_followers AFTER DELETE ON flux_checkpoint.outbox
        FOR EACH STATEMENT EXECUTE FUNCTION public.wait();
        GRANT USAGE ON SCHEMA public TO flux_checkpoint
    """)
    await bench.write(bench.event("bad", 1))
    await bench.one(
        "INSERT INTO outbox_parked (id, shard, agency_id, event_id, topic, headers, value, written_at, code)"
        " SELECT 0, shard, agency_id, gen_random_uuid(), topic, headers, '0', now(), 'X' FROM outbox"
    )

    async def one_round() -> None:
        async with bench.database.transaction() as connection:
            parked, _numbered = await connection.fetchrow(SQL["standing"], bench.shard)
            await connection.execute(SQL["park_followers"], bench.shard, parked, 1000)
            await connection.execute(SQL["number"], bench.shard, parked, 1000)

    async with waiting_for_advisory() as somebody_waits:
        task = asyncio.create_task(one_round())
        await until(somebody_waits)
        await bench.write(bench.event("bad", 2), bench.event("good", 3))
    await task

    assert await bench.one(PARKED) == [0, 1]
    assert await bench.one("SELECT number FROM outbox WHERE topic = 'bad'") is None
    assert await bench.one("SELECT number FROM outbox WHERE topic = 'good'") == 1


async def test_a_refused_cursor_is_nobodys_row(bench: Any, create_topic: Any, until: Any, kafka: Any) -> None:
    """The cursor topic does not take the cursor: an outage; no row is parked for it, and once it does all leave."""
    from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

    client = AdminClient({"bootstrap.servers": kafka.bootstrap})

    async def limit(most: str) -> None:
        entry = ConfigEntry("max.message.bytes", most, incremental_operation=AlterConfigOpType.SET)
        where = kafka.topic("flux-internal.relay-cursors.v1")
        resource = ConfigResource(ConfigResource.Type.TOPIC, where, incremental_configs=[entry])
        await asyncio.gather(
            *(asyncio.to_thread(f.result, 10) for f in client.incremental_alter_configs([resource]).values())
        )

    topic = await create_topic("t")
    await limit("10")
    said: list[Any] = []

    async def listening(real: Any, events: Any, cursor: int) -> None:
        try:
            await real.publish(events, cursor)
        except Exception as problem:
            said.append(problem)
            raise

    await bench.write(bench.event(topic, 1))
    task = bench.start(bench.publishing(listening))
    await until(lambda: asyncio.sleep(0, said or task.done()))
    await limit("1000000")
    await until(bench.empty)
    await bench.stop()

    assert (said[0].index, said[0].code) == (1, Code.TOO_LARGE)
    assert await bench.published(topic) == [1]
    assert await bench.one("SELECT count(*) FROM outbox_parked") == 0
