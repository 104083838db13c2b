"""From the client's record to `Received`, the only shape that leaves this room."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from flux_common.kafka.wire import Unreadable
from flux_common.kernel.clock import from_millis
from flux_common.kernel.errors import InvalidMessage
from flux_common.kernel.positions import Position, Received, TopicPartition

LOG_APPEND_TIME: Final = 1


def received(tp: TopicPartition, records: Sequence[Any]) -> list[Received]:
    """Return what the broker handed over for one Kafka partition, in order."""
    made: list[Received] = []
    stamp: int | None = None
    appended_at: datetime | None = None
    for record in records:
        if record.timestamp_type != LOG_APPEND_TIME:
            stamp = appended_at = None
        elif record.timestamp != stamp:  # a batch has one LogAppendTime: convert it once
            stamp, appended_at = record.timestamp, from_millis(record.timestamp)
        position, digest = Position(tp, record.offset), None if record.value is not None else _digest(record)
        made.append(Received(position, record.key, record.value, record.headers, appended_at, digest))
    return made


def _digest(record: Any) -> str | None:
    """Return the digest that the reader left of a value that it did not keep."""
    marked = record.headers and type(record.headers[0][0]) is Unreadable
    return record.headers[0][1].hex() if marked and record.headers[0][1] else None


def unreadable(record: Received) -> InvalidMessage | None:
    """Return why the bytes of a record could not be read at all; None for a record that was read."""
    if record.headers and type(record.headers[0][0]) is Unreadable:
        return InvalidMessage(str(record.headers[0][0]), "The record's batch cannot be unfolded within its bound")
    return None
