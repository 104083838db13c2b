"""An operator's two acts on a service's own tables: to accept that a lane lost records, and to release parked events.

Theory. What must hold: an act that only a person may decide leaves its proof with it. So each is one transaction under the
service's role, and the fact of it goes into that service's outbox in the same transaction: whoever later asks why offsets
have no effect finds the range in the ledger (*lost*) and the act in the audit log of the agency whose topic it is, or of
`_system`. The broker says what is lost, not the operator: the log's start and the topic's id are asked now.

| the lane, against its log | accepting a loss | what else |
|---|---|---|
| inside | refused: nothing is lost | – |
| below the log's start | goes on at the start; the range is booked as *lost*; who owned it is fenced | restart one process |
| above the log's end | refused: a lane never goes back | restore the broker |
| of another topic id, or of no topic | refused: no range of this log | the topic's next version |
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from flux_client.reader import APPLICATION, Row
from flux_common.contracts import canonical
from flux_common.contracts.catalogue import TOPICS, agency_in, lane_service
from flux_common.contracts.envelope import Outgoing
from flux_common.contracts.outgoing import Emitter
from flux_common.kafka.admin import Admin, LogFacts
from flux_common.kernel.clock import Clock, millis
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import LaneStopped
from flux_common.kernel.ids import SYSTEM_AGENCY, derived_id
from flux_common.kernel.positions import TopicPartition
from flux_common.postgres.database import Database
from flux_common.postgres.lanes import PostgresLanes
from flux_common.postgres.outbox import insert_outbox, release_parked
from flux_common.postgres.queries import Queries
from flux_common.settings import KafkaSettings, PostgresSettings

LOSS_ACCEPTED: Final = "lane.loss-accepted"
RELEASED: Final = "outbox.released"
_SQL: Final = Queries.load("flux_client", "ledger.sql")


@dataclass(frozen=True, slots=True)
class Lost:
    """The offsets that a lane will never apply, first and last, and where it goes on."""

    tp: TopicPartition
    first: int
    last: int

    @property
    def goes_on_at(self) -> int:
        """Return the lane's next offset."""
        return self.last + 1


class Mender:
    """What one service's role may mend, with the brokers' word on what there is."""

    def __init__(self, service: str, database: Database, kafka: KafkaSettings, clock: Clock) -> None:
        self._service, self._database, self._clock = service, database, clock
        self._admin = Admin(kafka)
        self._emitter = Emitter(service)

    async def lanes(self) -> list[Row]:
        """Return the service's lanes and how each stands to its log. Raises Unavailable."""
        async with self._database.transaction() as connection:
            rows = [dict(row) for row in await connection.fetch(_SQL["lanes"])]
        logs = await self._admin.logs([_place(row) for row in rows])
        return [_judged(row, logs.get(_place(row))) for row in rows]

    async def parked(self) -> list[Row]:
        """Return what waits in the service's parked events, by topic and code. Raises Unavailable."""
        async with self._database.transaction() as connection:
            return [dict(row) for row in await connection.fetch(_SQL["parked"])]

    async def accept_loss(self, tp: TopicPartition, reason: str) -> Lost:
        """Let a lane go on at its log's start, and write the fact of it.

        Raises:
            LaneStopped: nothing is lost, or what is there is another topic, or none.
            Unavailable: Kafka or PostgreSQL does not answer.
        """
        log = (await self._admin.logs([tp])).get(tp)
        if log is None:
            raise LaneStopped(Code.TOPIC_MISSING, f"there is no Kafka partition {tp}")
        agency, now = owner_of(tp.topic), self._clock.now()
        lanes = PostgresLanes(self._database, self._service)
        async with self._database.transaction() as connection:
            first, last = await lanes.accept_loss(
                connection, tp, topic_id=log.topic_id, log_start=log.log_start, reason=reason
            )
            subject: list[Any] = [LOSS_ACCEPTED, tp.topic, tp.kafka_partition, first, last, reason]
            refs = {"first_offset": first, "last_offset": last, "count": last - first + 1}
            await insert_outbox(connection, [self._fact(agency, LOSS_ACCEPTED, now, subject, refs, tp)])
        return Lost(tp, first, last)

    async def release(self, topic: str) -> int:
        """Move a topic's parked events back into the outbox, in their old order; return how many. Raises Unavailable."""
        now = self._clock.now()
        async with self._database.transaction() as connection:
            count = await release_parked(connection, topic)
            if count:
                subject: list[Any] = [RELEASED, self._service, topic, millis(now), now.microsecond, count]
                fact = self._fact(owner_of(topic), RELEASED, now, subject, {"topic": topic, "count": count})
                await insert_outbox(connection, [fact])
        return count

    def _fact(
        self,
        agency: str,
        type_: str,
        at: datetime,
        subject: list[Any],
        refs: dict[str, Any],
        tp: TopicPartition | None = None,
    ) -> Outgoing:
        return self._emitter.fact(
            agency,
            type_,
            at=at,
            event_id=derived_id(["fact", *subject]),
            subject=canonical.encode(subject),
            position=None if tp is None else tp.at(refs["first_offset"]),
            refs=refs,
        )


@asynccontextmanager
async def mending(
    service: str, settings: PostgresSettings, kafka: KafkaSettings, clock: Clock
) -> AsyncIterator[Mender]:
    """Yield a service's mender, under the service's own role. Raises Unavailable; FluxError if the server is too old."""
    database = await Database.open(settings.model_copy(update={"pool_min": 1, "pool_max": 1}), APPLICATION)
    try:
        yield Mender(service, database, kafka, clock)
    finally:
        await database.close()


def owner_of(topic: str) -> str:
    """Return the agency in whose audit log an act on a topic is told: its own, or `_system`."""
    return agency_in(topic) or SYSTEM_AGENCY


def service_of(topic: str) -> str | None:
    """Return the service whose lanes read a topic of the catalogue; None where no lane does."""
    spec = next((spec for spec in TOPICS if topic == spec.of(owner_of(topic))), None)
    return None if spec is None else lane_service(spec)


def _place(row: Row) -> TopicPartition:
    return TopicPartition(row["topic"], row["kafka_partition"])


def _judged(row: Row, log: LogFacts | None) -> Row:
    """Say of a lane how it stands to its log, in the words of the table above."""
    start, end = (None, None) if log is None else (log.log_start, log.log_end)
    return {**row, "log_start": start, "log_end": end, "state": _standing(row, log)}


def _standing(row: Row, log: LogFacts | None) -> str:
    if log is None:
        return "no topic"
    if row["topic_id"] != log.topic_id:
        return "another topic"
    if row["next_offset"] < log.log_start:
        return f"lost {log.log_start - row['next_offset']}"
    return "above the log" if row["next_offset"] > log.log_end else "inside"
