"""Following a run to its end.

Two sources, for two kinds of caller. Whoever may read PostgreSQL sees every slice (`flux.run_summary`, polled). Whoever
may only read the agency's topics sees the decision and the end. The end itself is always the same: a terminal event per
attempt, and the row's state, which speaks for its attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from flux_client.events import TERMINAL, ReceivedEvent
from flux_client.reader import FluxReader, Row
from flux_client.streams import present
from flux_common.contracts.catalogue import COMPLETIONS
from flux_common.contracts.runs import RunCompleted
from flux_common.kernel.ids import murmur2
from flux_common.kernel.positions import TopicPartition
from flux_common.settings import KafkaSettings

TERMINAL_STATES: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
POLL_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. Counts are of objects; None where the source does not tell."""

    state: str
    objects: int | None = None
    read: int | None = None
    rejected: int | None = None
    partitions: int | None = None
    partitions_finished: int | None = None
    run_attempt: int | None = None

    @property
    def ended(self) -> bool:
        """Tell whether this attempt is over."""
        return self.state in TERMINAL_STATES


def progress_of(row: Row) -> Progress:
    """Return the progress that a summary row says."""
    members = ("state", "objects", "read", "rejected", "partitions", "partitions_finished", "run_attempt")
    return Progress(**{name: row[name] for name in members})


def progress_at_end(event: ReceivedEvent) -> Progress:
    """Return the progress that a terminal event says."""
    state = event.type.split(".")[2].upper()
    body: Any = event.body
    if not isinstance(body, RunCompleted):
        return Progress(state, run_attempt=body.run_attempt)
    counts, parts = body.counts, body.partitions
    return Progress(state, body.objects, counts.read, counts.rejected, parts, parts, body.run_attempt)


async def progress(reader: FluxReader, run_id: UUID, *, expected: bool = False) -> AsyncIterator[Progress]:
    """Yield a run's progress, whenever it is another than before, until it has ended.

    A run that is not there ends it too, unless it is `expected`: accepted, and soon to be recorded.
    """
    before: Progress | None = None
    while True:
        row = await reader.summary(run_id)
        if row is None and not expected:
            return
        now = before if row is None else progress_of(row)
        if now is not None and now != before:
            yield now
        if now is not None and now.ended:
            return
        before = now
        await asyncio.sleep(POLL_SECONDS)


def ends_on(agency: str, run_id: str) -> dict[TopicPartition, int]:
    """Return the one Kafka partition that carries the ends of a run, from its first offset on."""
    return {TopicPartition(COMPLETIONS.of(agency), murmur2(run_id.encode()) % COMPLETIONS.kafka_partitions): 0}


async def last_end(agency: str, settings: KafkaSettings, run_id: str) -> ReceivedEvent | None:
    """Return the run's last terminal event that is on the completions topic now. Raises Unavailable."""
    found: ReceivedEvent | None = None
    async for event in present(settings, COMPLETIONS.of(agency), ends_on(agency, run_id)):
        found = event if is_end(event, run_id) else found
    return found


def is_end(event: ReceivedEvent, run_id: str) -> bool:
    """Tell whether this is a terminal event of the run."""
    body: Any = event.body
    return event.type in TERMINAL and body.run_id == run_id
