"""What docs/operations.md tells an operator to type does what it says, as the service's own role."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from flux_common.kernel.errors import Fenced
from flux_common.kernel.positions import Lane, TopicPartition
from flux_common.postgres.database import Database
from flux_common.postgres.lanes import PostgresLanes

PAGE = Path(__file__).parents[2] / "docs/operations.md"
STATEMENTS: dict[str, str] = dict(re.findall(r"^```sql\n-- ([^\n]+)\n(.+?)^```", PAGE.read_text(), re.M | re.S))
TP = TopicPartition("flux-internal.progress.v1", 2)
TOPIC = "flux.nasa.run.completions.v1"


def typed(name: str, **variables: str | int) -> str:
    """Return a statement of the page as psql sends it: `:'x'` is a text, `:x` stands as it is."""
    text = STATEMENTS[name]
    for variable, value in variables.items():
        text = text.replace(f":'{variable}'", f"'{value}'").replace(f":{variable}", str(value))
    return text


async def rows(database: Database, statement: str) -> list[tuple[Any, ...]]:
    """Return what a statement selects."""
    async with database.transaction() as connection:
        return [tuple(row) for row in await connection.fetch(statement)]


async def lane_at(database: Database, offset: int) -> Lane:
    """Take a lane that begins at `offset`."""
    return await PostgresLanes(database, "checkpoint").take(TP, topic_id="id", log_start=offset, log_end=offset)


@pytest.mark.parametrize(("goes_on_at", "expected"), [(15, (15, 1)), (10, (10, 0)), (7, (10, 0))])
async def test_a_loss_is_accepted_once_and_never_backwards(
    checkpoint_database: Database, goes_on_at: int, expected: tuple[int, int]
) -> None:
    """The lane goes on at the log's start, its owner is fenced, and the range is booked as lost; else nothing happens."""
    lane = await lane_at(checkpoint_database, 10)
    said = typed(
        "accept a loss", topic=TP.topic, partition=TP.kafka_partition, goes_on_at=goes_on_at, reason="disk 7 died"
    )
    for _ in range(2):
        await rows(checkpoint_database, said)
    found = await rows(checkpoint_database, "SELECT next_offset, owner_epoch FROM lanes")
    booked = await rows(checkpoint_database, "SELECT from_offset, to_offset, effects, lost FROM ledger")
    listed = await rows(checkpoint_database, "SELECT first_offset, last_offset, class, ref FROM ledger_exceptions")
    lost = goes_on_at == 15

    assert found == [(expected[0], lane.owner_epoch + expected[1])]
    assert booked == ([(10, 15, 0, 5)] if lost else [])
    assert listed == ([(10, 14, "lost", "disk 7 died")] if lost else [])


async def test_whoever_owned_a_lane_whose_loss_was_accepted_is_fenced(checkpoint_database: Database) -> None:
    """The epoch moves with the offset: an owner that knows nothing of it commits nothing."""
    lane = await lane_at(checkpoint_database, 10)
    said = typed("accept a loss", topic=TP.topic, partition=TP.kafka_partition, goes_on_at=15, reason="x")
    await rows(checkpoint_database, said)

    with pytest.raises(Fenced):
        await PostgresLanes(checkpoint_database, "checkpoint").tick(lane, 12, caught_up=False)


async def test_a_parked_topic_is_released_in_its_old_order(checkpoint_database: Database) -> None:
    """The rows of one topic and shard go back under their old ids, unnumbered; other topics stay parked."""
    parked = (
        "INSERT INTO outbox_parked (id, shard, agency_id, event_id, topic, headers, value, written_at, code) "
        f"SELECT n, 1, 'nasa', gen_random_uuid(), CASE n WHEN 3 THEN 'other' ELSE '{TOPIC}' END, '[]', 'x', now(), 'C' "
        "FROM generate_series(1, 4) AS n"
    )
    await rows(checkpoint_database, parked)
    await rows(checkpoint_database, typed("release a parked topic", shard=1, topic=TOPIC))

    assert await rows(checkpoint_database, "SELECT id, number FROM outbox ORDER BY id") == [
        (1, None),
        (2, None),
        (4, None),
    ]
    assert await rows(checkpoint_database, "SELECT id FROM outbox_parked") == [(3,)]


def test_every_statement_of_the_page_is_proved_here() -> None:
    """A statement without a test is a statement that may be wrong when it is needed."""
    assert set(STATEMENTS) == {"accept a loss", "release a parked topic"}
