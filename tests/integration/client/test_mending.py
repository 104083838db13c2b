"""What an operator decides about lanes and parked events: done in one transaction with the fact of it, or refused."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from confluent_kafka import TopicPartition as BrokerPartition
from confluent_kafka.admin import AdminClient

from flux_client.mending import Mender, service_of
from flux_common.contracts.catalogue import AUDIT, RUNS
from flux_common.contracts.envelope import Outgoing
from flux_common.contracts.outgoing import Emitter
from flux_common.kafka.admin import Admin
from flux_common.kafka.publisher import IdempotentPublisher
from flux_common.kernel.clock import FixedClock
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Fenced, LaneStopped
from flux_common.kernel.positions import Lane, LaneBatch, TopicPartition
from flux_common.postgres.database import Database
from flux_common.postgres.lanes import PostgresLanes
from flux_common.postgres.outbox import insert_outbox
from flux_common.settings import KafkaSettings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TP = TopicPartition(RUNS.name, 0)
FACTS = f"SELECT value FROM outbox WHERE topic = '{AUDIT.name}' ORDER BY id"
LOST = "SELECT first_offset, last_offset, ref FROM ledger_exceptions WHERE class = 'lost'"
PARK = """
    WITH moved AS (DELETE FROM outbox RETURNING *)
    INSERT INTO outbox_parked
          (id, shard, agency_id, event_id, topic, kafka_partition, key, headers, value, written_at, code)
    SELECT id, shard, agency_id, event_id, topic, kafka_partition, key, headers, value, written_at, 'TOPIC_MISSING'
      FROM moved
"""


@pytest.fixture
def lanes(checkpoint_database: Database) -> PostgresLanes:
    return PostgresLanes(checkpoint_database, "checkpoint")


@pytest.fixture
def mender(checkpoint_database: Database, settings: KafkaSettings) -> Mender:
    """The operator, with checkpoint's role."""
    return Mender("checkpoint", checkpoint_database, settings, FixedClock(NOW))


@pytest.fixture
async def behind(lanes: PostgresLanes, settings: KafkaSettings) -> Lane:
    """A lane at 2 whose log begins at 5: retention took three records unread."""
    publisher = IdempotentPublisher(settings)
    await publisher.send([an_event(number) for number in range(8)])
    await publisher.close()
    log = (await Admin(settings).logs([TP]))[TP]
    lane = await lanes.take(TP, topic_id=log.topic_id, log_start=0, log_end=log.log_end)
    async with lanes.advance(LaneBatch(lane, [], 2)):
        pass
    outward = f"{settings.topic_prefix}{TP.topic}"
    client = AdminClient({"bootstrap.servers": settings.bootstrap})
    for done in client.delete_records([BrokerPartition(outward, 0, 5)]).values():
        done.result(20)
    return lane


def an_event(number: int) -> Outgoing:
    """Return some event for the lane's Kafka partition."""
    fact = Emitter("test").fact("nasa", "x", at=NOW, event_id=UUID(int=number + 1), subject=b"x")
    return replace(fact, topic=TP.topic, kafka_partition=TP.kafka_partition)


async def rows(database: Database, statement: str) -> list[Any]:
    """Return what checkpoint's role reads."""
    async with database.transaction() as connection:
        return [tuple(row) for row in await connection.fetch(statement)]


async def facts(database: Database) -> list[dict[str, Any]]:
    """Return the facts in checkpoint's outbox."""
    return [json.loads(value) for (value,) in await rows(database, FACTS)]


async def test_a_lane_says_how_it_stands_to_its_log(mender: Mender, behind: Lane) -> None:
    """Three offsets are lost: the broker says so, and the listing."""
    (row,) = await mender.lanes()

    assert (row["next_offset"], row["log_start"], row["log_end"], row["state"]) == (2, 5, 8, "lost 3")
    assert row["watermark"] is None  # nothing was read yet: no instant, and none that no clock can show


async def test_an_accepted_loss_is_booked_and_told(
    mender: Mender, lanes: PostgresLanes, behind: Lane, checkpoint_database: Database
) -> None:
    """The lane goes on at the log's start, its owner is fenced, the ledger and one fact say what is lost."""
    lost = await mender.accept_loss(TP, "disk 7 died")
    with pytest.raises(Fenced):
        async with lanes.advance(LaneBatch(behind, [], 9)):
            pytest.fail("entered")
    (fact,) = await facts(checkpoint_database)

    assert (lost.first, lost.last, lost.goes_on_at) == (2, 4, 5)
    assert await rows(checkpoint_database, LOST) == [(2, 4, "disk 7 died")]
    assert (fact["agency_id"], fact["type"], fact["src"]["topic"], fact["src"]["offset"]) == (
        "_system",
        "lane.loss-accepted",
        TP.topic,
        2,
    )
    assert fact["refs"] == {"first_offset": 2, "last_offset": 4, "count": 3}
    assert [row["state"] for row in await mender.lanes()] == ["inside"]


async def test_nothing_is_accepted_where_nothing_is_lost(
    mender: Mender, behind: Lane, checkpoint_database: Database
) -> None:
    """A second time, and for a topic that is not there: refused, and no fact of it."""
    await mender.accept_loss(TP, "disk 7 died")
    refused = []
    for tp in (TP, TopicPartition("flux.nobody.run.requests.v1", 0)):
        with pytest.raises(LaneStopped) as problem:
            await mender.accept_loss(tp, "again")
        refused.append(problem.value.code)

    assert refused == [Code.LANE_DATA_LOST, Code.TOPIC_MISSING]
    assert len(await facts(checkpoint_database)) == 1


async def test_released_events_are_told_once(mender: Mender, checkpoint_database: Database) -> None:
    """They go back in their order, before the fact of it; with none there is none."""
    async with checkpoint_database.transaction() as connection:
        await insert_outbox(connection, [an_event(number) for number in range(3)])
        await connection.execute(PARK)
    waiting = await mender.parked()
    counts = [await mender.release(TP.topic), await mender.release(TP.topic)]
    topics = [topic for (topic,) in await rows(checkpoint_database, "SELECT topic FROM outbox ORDER BY id")]
    (fact,) = await facts(checkpoint_database)

    assert [(row["topic"], row["code"], row["events"]) for row in waiting] == [(TP.topic, "TOPIC_MISSING", 3)]
    assert (counts, topics[:3], len(topics)) == ([3, 0], [TP.topic] * 3, 4)
    assert (fact["type"], fact["refs"]) == ("outbox.released", {"topic": TP.topic, "count": 3})


@pytest.mark.parametrize(
    ("topic", "service"),
    [
        ("flux.nasa.run.requests.v1", "ingest"),
        (RUNS.name, "checkpoint"),
        ("flux-internal.audit.v1", "audit"),
        ("flux.nasa.run.decisions.v1", None),
        ("some.topic", None),
    ],
)
def test_a_topic_names_the_service_whose_lanes_read_it(topic: str, service: str | None) -> None:
    """Of the catalogue's topics, those that a lane reads."""
    assert service_of(topic) == service
