"""One assigned Kafka partition, from its assignment to its revocation.

A new object is made for each assignment, so the object's identity is the assignment's: what was begun under an older
one finds itself `dropped`. It keeps the client's position, pause and buffer in step; it decides nothing.

| state | lane known | fetched | leaves it by |
|---|---|---|---|
| taking | no | no (paused at a made-up position) | `begin` |
| ready | yes | yes | `leave`, `drop` |
| held | yes | no | `resume` after a pause |
| stopped | no | no | only by a new assignment: it waits for an operator |
| ignored | no | no | its topic becomes one that is accepted |
| dropped | – | no | never |
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from itertools import accumulate
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as BrokerPartition
from aiokafka.errors import IllegalStateError

from flux_common.kafka.holding import weight
from flux_common.kafka.records import received
from flux_common.kernel.positions import Lane, Received, TopicPartition

# What the client says of a partition that is not assigned, or between two assignments.
NOT_ASSIGNED: Final = (IllegalStateError, AssertionError)


class State(StrEnum):
    """What an assigned Kafka partition is waiting for, or that it waits for nothing."""

    TAKING = "taking"
    READY = "ready"
    HELD = "held"
    STOPPED = "stopped"
    IGNORED = "ignored"
    DROPPED = "dropped"


class Owned:
    """The partition, its lane once it is taken, and the records that were fetched ahead."""

    def __init__(self, consumer: AIOKafkaConsumer, broker: BrokerPartition, tp: TopicPartition, now: float) -> None:
        self._consumer = consumer
        self.broker = broker
        self.tp = tp
        self.state = State.TAKING
        self.why = "assigned"
        self.untaken_since = now
        self.stamp: datetime | None = None  # LogAppendTime of the last record applied
        self.lane: Lane | None = None
        self.buffer: list[Received] = []
        self._weights: list[int] = []  # of what is buffered, in bytes
        self.held = 0  # their sum
        self.expected = 0  # the offset behind the last record that was buffered
        self.task: asyncio.Task[None] | None = None
        self.touched = now  # last Take, seek, record or Advance
        self.ticked = 0.0
        self.tries = 0
        self._stop_fetching()
        with suppress(*NOT_ASSIGNED):  # a made-up position, so that the client asks the group for none
            self._consumer.seek(broker, 0)

    @property
    def idle(self) -> bool:
        """Tell whether the lane is taken and nothing of it waits or is worked."""
        return self.state is State.READY and self.task is None and not self.buffer

    @property
    def highwater(self) -> int | None:
        """Return the end of the log at the last poll; None if unknown."""
        with suppress(*NOT_ASSIGNED):
            return self._consumer.highwater(self.broker)  # type: ignore[no-any-return]
        return None

    @property
    def polled_ms(self) -> int | None:
        """Return when the broker last answered for this partition, in milliseconds since 1970; None if never."""
        with suppress(*NOT_ASSIGNED):
            return self._consumer.last_poll_timestamp(self.broker)  # type: ignore[no-any-return]
        return None

    async def position(self) -> int:
        """Return where the client goes on; it does not suspend for a lane that is ready. -1 if not assigned."""
        with suppress(*NOT_ASSIGNED):
            return await self._consumer.position(self.broker)  # type: ignore[no-any-return]
        return -1

    def begin(self, lane: Lane, now: float) -> None:
        """Go on where a Take says."""
        self.lane = lane
        self.rewind(now)
        self.resume()

    def resume(self) -> None:
        """Be fetched, as a lane that is taken."""
        self.state = State.READY
        with suppress(*NOT_ASSIGNED):  # revoked meanwhile
            self._consumer.resume(self.broker)

    def rewind(self, now: float) -> None:
        """Forget what was fetched ahead; the next record fetched is the lane's next."""
        assert self.lane is not None
        self._forget()
        self.expected = self.lane.next_offset
        self.refetch(now)

    def refetch(self, now: float) -> None:
        """Let the client go on behind the last buffered record, wherever it thinks it is."""
        self.touched = now
        with suppress(*NOT_ASSIGNED):
            self._consumer.seek(self.broker, self.expected)

    def receive(self, records: Sequence[Any], now: float) -> None:
        """Buffer fetched records; those before the expected one are dropped uncounted."""
        wanted = records if records[0].offset >= self.expected else [r for r in records if r.offset >= self.expected]
        if not wanted:
            self.refetch(now)
            return
        self._keep(received(self.tp, wanted))
        self.expected = wanted[-1].offset + 1
        self.touched = now

    def next_records(self, records_max: int, bytes_max: int) -> list[Received]:
        """Take the next batch out of the buffer: up to either bound, and the record that reaches it."""
        sums = list(accumulate(self._weights[:records_max]))
        number = min(bisect_left(sums, bytes_max) + 1, len(sums))
        records = self.buffer[:number]
        del self.buffer[:number], self._weights[:number]
        self.held -= sums[number - 1] if records else 0
        return records

    def _keep(self, records: Sequence[Received]) -> None:
        weights = [weight(record.key, record.value, record.headers) for record in records]
        self.buffer += records
        self._weights += weights
        self.held += sum(weights)

    def _forget(self) -> None:
        self.buffer.clear()
        self._weights.clear()
        self.held = 0

    def leave(self, state: State, why: str, now: float) -> None:
        """Stop being fetched. A lane that is only held stays known; any other must be taken again."""
        self.why = why
        self._forget()
        if state is not State.HELD:
            if self.state is not State.TAKING:
                self.untaken_since = now
            self.lane = None
        self.state = state
        self._stop_fetching()

    def drop(self) -> None:
        """Be revoked."""
        self.state = State.DROPPED
        self._forget()

    def _stop_fetching(self) -> None:
        with suppress(*NOT_ASSIGNED):
            self._consumer.pause(self.broker)
