"""How much of its topics a process holds in memory: a bounded number of bytes, whatever stands in them.

Theory. A few kilobytes unfold to megabytes, and neither a topic's limit nor a broker's quota counts what they unfold to; so
whoever may write one topic could fill the memory of a process that reads all of them, and again after each restart, for it
goes on at the same offsets. Records are counted, but one may weigh as much as thousands. Hence each place between the broker
and a handler has a bound in bytes of its own, and each is kept by not going on, never by passing a record over:

| held | at most | kept by |
|---|---|---|
| as fetched, still compressed | `RAW_BYTES_MAX`, and an answer of each broker | no fetch while so much is unread |
| one batch, unfolded | `wire.BATCH_BYTES_MAX`, during a poll alone | `Batches.fold` when a poll stops inside it |
| records of one lane that wait | `LaneLimits.bytes_max`, and a record | its share, less what waits already |
| records of all lanes of a loop that wait | `LaneLimits.held_bytes_max`, and a record | `Allowance`: what one poll may add |
| records in work | `LaneLimits.bytes_max`, and a record, in each slot | a batch ends there |

A lane's share is a quarter of the room that is left, `bytes_max` at most: the more lanes wait for their turn, the less each
holds, and there is room for one more. So whoever fills his own lanes delays nobody; only a dozen lanes at once that are full of
records of the largest size can, until one of them is worked.

A record is weighed as what it takes in memory, headers and objects included: thousands of empty headers are cheap to send.
Of one, no more than `wire.RECORD_BYTES_MAX` is read. What a poll may not
take stays with the client, in its place: the position moves only over what was taken.

aiokafka's fetcher makes a `FetchResult` of each answer for a Kafka partition; `Fetched` stands in its place (`wire.install`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from sys import maxsize
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import FetchResult

# Nothing is fetched while it is reached. One lane has 2 MiB of it at most, or a batch, so no agency reaches it by itself.
RAW_BYTES_MAX: Final = 128 * 2**20
HOLD_BACK_SECONDS: Final = 0.1
SHARES: Final = 4  # of the room that is left: one lane may fill one
# A poll unfolds a batch again that an earlier one stopped in, so a lane that has work is given no handful of records.
WORTH_A_BATCH: Final = 256 * 2**10
# What CPython takes for a record and its position, and for a header with its two objects, beside their bytes.
RECORD_OBJECTS: Final = 400
HEADER_OBJECTS: Final = 160
CHARACTER: Final = 4  # bytes of each in a text that has one beyond the basic plane


def weight(key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> int:
    """Return about how many bytes of memory a record takes."""
    content = sum(HEADER_OBJECTS + CHARACTER * len(name) + len(text or b"") for name, text in headers)
    return RECORD_OBJECTS + len(key or b"") + len(value or b"") + content


@dataclass(slots=True)
class Allowance:
    """How many bytes may still wait in all lanes together, at most in each, and what waits in each before a poll."""

    room: int
    each: int
    waiting: Mapping[TopicPartition, int]

    @property
    def share(self) -> int:
        """Return how many bytes may wait in one lane now."""
        return min(self.each, self.room // SHARES)

    def bound(self, tp: TopicPartition) -> int:
        """Return how many bytes a poll may add to a lane."""
        waiting = self.waiting.get(tp, 0)
        bound = self.share - waiting
        return 0 if waiting and bound < min(self.each, WORTH_A_BATCH) else bound


_allowance: ContextVar[Allowance | None] = ContextVar("allowance", default=None)


@contextmanager
def within(allowance: Allowance) -> Iterator[None]:
    """Bound what the polls inside the block take; without it only their number of records is bounded."""
    token = _allowance.set(allowance)
    try:
        yield
    finally:
        _allowance.reset(token)


class Fetched(FetchResult):  # type: ignore[misc]
    """What was fetched of one Kafka partition and is not read yet."""

    raw_bytes = 0  # of all that live

    def __init__(self, tp: Any, *, assignment: Any, partition_records: Any, backoff: float) -> None:
        super().__init__(tp, assignment=assignment, partition_records=partition_records, backoff=backoff)
        self._records = partition_records
        self._batches = partition_records._records
        type(self).raw_bytes += self._batches.size_in_bytes()

    def __del__(self) -> None:
        """Count no more, and let go at once: aiokafka's reader refers to itself, and would wait for a collection."""
        type(self).raw_bytes -= self._batches.size_in_bytes()
        if self._records._records_iterator is not None:
            self._records._records_iterator.close()

    def calculate_backoff(self) -> float:
        """Return for how long nothing more is fetched from this one's broker."""
        pause: float = super().calculate_backoff()
        return max(pause, HOLD_BACK_SECONDS) if Fetched.raw_bytes >= RAW_BYTES_MAX else pause

    def getall(self, max_records: int | None = None) -> list[Any]:
        """Return the next records, as many as the poll may take; the others stay."""
        if not self.check_assignment(self._topic_partition) or not self.has_more():
            return []
        allowance = _allowance.get() or Allowance(maxsize, maxsize, {})
        if allowance.bound(self._topic_partition) <= 0:
            return []
        try:
            return self._take(max_records, allowance)
        finally:
            self._batches.fold()

    def _take(self, max_records: int | None, allowance: Allowance) -> list[Any]:
        taken: list[Any] = []
        size, bound = 0, allowance.bound(self._topic_partition)
        for record in self._records:
            taken.append(record)
            size += weight(record.key, record.value, record.headers)
            if size >= bound or len(taken) == max_records:
                self._update_position()
                break
        else:
            self._update_position()
            self._partition_records = None
        allowance.room -= size
        return taken
