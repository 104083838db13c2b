"""What became of one record: `flux-etl explain TOPIC KAFKA_PARTITION OFFSET`.

The consuming service's ledger is the authority (I8): every offset that a lane has passed is an *effect*, a *duplicate*,
*fenced*, a *dead letter*, *control* or *lost*. It belongs to the service's role, so an operator who has that log-in gets
its word. Whoever has only the reader's, or only the agency's topics, gets what these show: the rows that a record
caused, the decision that names it, its dead letter, its audit entry. What they do not show is called *unknown*.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from flux_client.events import answers
from flux_client.reader import FluxReader, Row, booked
from flux_client.streams import present
from flux_common.contracts.catalogue import (
    AUDIT,
    DEAD_LETTERS,
    DECISIONS,
    PROGRESS,
    REQUESTS,
    RUNS,
    TOPICS,
    TopicSpec,
    lane_service,
)
from flux_common.contracts.envelope import read_envelope
from flux_common.kafka.admin import Admin
from flux_common.kafka.follow import TopicFollower
from flux_common.kernel.errors import ValidationFailed
from flux_common.kernel.positions import Position, Received
from flux_common.settings import KafkaSettings, PostgresSettings

_EVENT_SOURCES: Final = {RUNS.name: "runs", PROGRESS.name: "progress"}


class UnknownTopic(LookupError):
    """The catalogue has no such topic, or it belongs to another agency."""


class Explainer:
    """Explains positions to one agency, with as much access as the caller has."""

    def __init__(
        self, agency: str, settings: KafkaSettings, reader: FluxReader | None, ledgers: Mapping[str, PostgresSettings]
    ) -> None:
        self._agency, self._settings = agency, settings
        self._reader, self._ledgers = reader, ledgers

    async def explain(self, position: Position) -> Row:
        """Return what is known: `class`, the record's envelope, who consumes it, and what it caused.

        Raises:
            UnknownTopic: the catalogue has no such topic for this agency.
            Unavailable: Kafka or PostgreSQL does not answer.
        """
        spec = self._spec(position.tp.topic)
        consumer = lane_service(spec)
        found: Row = {
            "topic": position.tp.topic,
            "kafka_partition": position.tp.kafka_partition,
            "offset": position.offset,
            "record": await self._record(position),
            "consumer": consumer,
            "ledger": await self._booked(consumer, position),
            **await self._caused(spec, position),
        }
        return {"class": classify(found), **found}

    def _spec(self, topic: str) -> TopicSpec:
        for spec in TOPICS:
            if topic == spec.of(self._agency):
                return spec
        raise UnknownTopic(topic)

    async def _booked(self, consumer: str | None, position: Position) -> Row | None:
        ledger = self._ledgers.get(consumer) if consumer else None
        return None if ledger is None else await booked(ledger, position)

    async def _caused(self, spec: TopicSpec, position: Position) -> Row:
        """Return the traces that a record of this topic leaves where this agency can see them."""
        caused: Row = {}
        if spec is REQUESTS:
            caused["decision"] = await self._naming(DECISIONS, position)
        if spec in (REQUESTS, RUNS, PROGRESS):
            caused["dead_letter"] = await self._naming(DEAD_LETTERS, position)
        if self._reader is not None and spec in (RUNS, PROGRESS):
            caused["effects"] = await self._reader.effects(_EVENT_SOURCES[spec.name], position)
        if self._reader is not None and spec is AUDIT:
            caused["sealed"] = await self._reader.sealed_at(position)
        return caused

    async def _naming(self, topic: TopicSpec, position: Position) -> Row | None:
        """Return the event of `topic` that answers the position. It reads the topic whole: a person asks, rarely."""
        async for event in present(self._settings, topic.of(self._agency)):
            if answers(event.body, position):
                return event.document()
        return None

    async def _record(self, position: Position) -> Row:
        logs = await Admin(self._settings).logs([position.tp])
        if position.tp not in logs:
            return {"state": "no such Kafka partition"}
        if position.offset < logs[position.tp].log_start:
            return {"state": "expired"}
        if position.offset >= logs[position.tp].log_end:
            return {"state": "not yet written"}
        async with _records(self._settings, position) as records:
            async for record in records:
                return _described(record) if record.position == position else {"state": "control"}
        return {"state": "control"}


def classify(found: Mapping[str, Any]) -> str:
    """Return the class of a position from what was found about it; the ledger's word goes first."""
    ledger = found.get("ledger")
    if ledger is not None and ledger["class"] != "unknown":
        return str(ledger["class"])
    if found.get("dead_letter"):
        return "dead_letter"
    if any(found.get(trace) for trace in ("effects", "decision", "sealed")):
        return "effect"
    state = found["record"]["state"]
    return {"control": "control", "not yet written": "unread"}.get(state, "unknown")


@asynccontextmanager
async def _records(settings: KafkaSettings, position: Position) -> AsyncIterator[AsyncIterator[Received]]:
    follower = TopicFollower(settings, start={position.tp: position.offset})
    try:
        await follower.open()
        yield (record async for batch in follower.to_end() for record in batch)
    finally:
        await follower.close()


def _described(record: Received) -> Row:
    """Return a record's envelope; never its value."""
    described: Row = {"state": "present", "key": None if record.key is None else record.key.decode(errors="replace")}
    try:
        envelope = read_envelope(record)
    except ValidationFailed as problem:
        return {**described, "envelope": problem.code}
    return {**described, "type": envelope.type, "event_id": envelope.id, "subject": envelope.subject}
