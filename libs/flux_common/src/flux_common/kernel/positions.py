"""Where a record stands on a topic, as frozen values: never three loose integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256


@dataclass(frozen=True, slots=True, order=True)
class TopicPartition:
    """One Kafka partition of a topic."""

    topic: str
    kafka_partition: int

    def at(self, offset: int) -> Position:
        """Return the position of `offset` on this Kafka partition."""
        return Position(self, offset)

    def __str__(self) -> str:
        return f"{self.topic}/{self.kafka_partition}"


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """The place of one record: topic, Kafka partition, offset."""

    tp: TopicPartition
    offset: int

    def __str__(self) -> str:
        return f"{self.tp}@{self.offset}"


def next_offset(position: Position) -> int:
    """Return the offset that a consumer wants after `position`."""
    return position.offset + 1


@dataclass(frozen=True, slots=True)
class Received:
    """One record as the broker handed it over. Nothing in it is trusted.

    `appended_at` is the broker's LogAppendTime, or None where the topic carries the producer's own time. `digest` is that of
    a value which was too large to be kept, and then `value` is None.
    """

    position: Position
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = field(default=())
    appended_at: datetime | None = None
    digest: str | None = None

    @property
    def sha256(self) -> str:
        """Return the digest of the value, of no bytes where nothing is known of it."""
        return self.digest or sha256(self.value or b"").hexdigest()

    def header(self, name: str) -> bytes | None:
        """Return the value of the only header called `name`; None if there is none or more than one."""
        found = [value for key, value in self.headers if key == name]
        return found[0] if len(found) == 1 else None

    def count(self, name: str) -> int:
        """Return how many headers are called `name`."""
        return sum(1 for key, _ in self.headers if key == name)


@dataclass(frozen=True, slots=True)
class Lane:
    """One Kafka partition as a consumer backed by PostgreSQL owns it, since its last Take.

    `owner_epoch` is the fence: only the owner whose epoch stands in the row can advance the lane.
    """

    consumer: str
    tp: TopicPartition
    topic_id: str
    owner_epoch: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class LaneBatch:
    """What one Advance applies: the lane as taken, the records from its `next_offset` on, and where it leads.

    `end_offset` is the lane's next `next_offset`. What lies between and is no record is *control*: transaction
    markers and aborted records take offsets too.
    """

    lane: Lane
    records: Sequence[Received]
    end_offset: int

    @property
    def controls(self) -> int:
        """Return how many offsets of the batch hold no record."""
        return self.end_offset - self.lane.next_offset - len(self.records)

    def control_ranges(self) -> list[tuple[int, int]]:
        """Return the gaps between the records as (first, last) offsets, both inclusive."""
        gaps: list[tuple[int, int]] = []
        expected = self.lane.next_offset
        for offset in [*(record.position.offset for record in self.records), self.end_offset]:
            if offset > expected:
                gaps.append((expected, offset - 1))
            expected = offset + 1
        return gaps
