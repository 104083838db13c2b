"""The outbox: events are written in the transaction that decides them, and leave through the relay.

An event's shard follows its agency, so all that an agency's decisions cause leaves in insert order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from flux_common.contracts.envelope import Outgoing
from flux_common.kernel.ids import SHARDS, shard_of
from flux_common.kernel.positions import Position, Received
from flux_common.postgres.database import Connection
from flux_common.postgres.queries import Queries

SQL = Queries.load("flux_common.postgres", "outbox.sql")
VALUE_BYTES_MAX = 512 * 1024
PIECE_ROWS = 10_000  # moved by one statement, within its time-out


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record put aside: whose, where, the digest of its value, and why. Never its bytes."""

    agency_id: str
    position: Position
    sha256: str
    code: str

    @classmethod
    def of(cls, agency_id: str, record: Received, code: str) -> DeadLetter:
        """Return the dead letter of `record`."""
        return cls(agency_id, record.position, record.sha256, code)


async def insert_outbox(connection: Connection, events: Sequence[Outgoing]) -> None:
    """Write events to the outbox of the connection's role, in their order."""
    if not events:
        return
    await connection.execute(
        SQL["insert"],
        [shard_of(event.agency_id) for event in events],
        [event.agency_id for event in events],
        [UUID(event.event_id) for event in events],
        [event.topic for event in events],
        [event.kafka_partition for event in events],
        [event.key for event in events],
        [json.dumps([[name, value.decode()] for name, value in event.headers]) for event in events],
        [event.value for event in events],
    )


async def insert_dead_letters(connection: Connection, letters: Sequence[DeadLetter]) -> None:
    """Write dead letters to the table of the connection's role."""
    if not letters:
        return
    ordered = sorted(letters, key=lambda letter: letter.position)
    await connection.execute(
        SQL["insert_dead_letters"],
        [letter.agency_id for letter in ordered],
        [letter.position.tp.topic for letter in ordered],
        [letter.position.tp.kafka_partition for letter in ordered],
        [letter.position.offset for letter in ordered],
        [bytes.fromhex(letter.sha256) for letter in ordered],
        [letter.code for letter in ordered],
    )


async def release_parked(connection: Connection, topic: str) -> int:
    """Move a topic's parked events back into the outbox, in their old order; return how many.

    An operator's act, once the broker takes the topic's events again; the caller writes the fact of it in the same
    transaction. An event that is refused again is parked again, with those behind it.
    """
    released = 0
    for shard in range(SHARDS):
        await connection.execute(SQL["lock_shard"], shard)
        while piece := await connection.fetchval(SQL["release_parked"], shard, topic, PIECE_ROWS):
            released += piece
    return released


def outgoing_of(row: Any) -> Outgoing:
    """Return the event of an outbox row."""
    return Outgoing(
        topic=row["topic"],
        key=row["key"],
        event_id=str(row["event_id"]),
        headers=[(name, value.encode()) for name, value in json.loads(row["headers"])],
        value=bytes(row["value"]),
        agency_id=row["agency_id"],
        kafka_partition=row["kafka_partition"],
    )
