"""Building events: one call per event, so that every topic gets its envelope in one way."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from flux_common.contracts import catalogue
from flux_common.contracts.catalogue import EventSpec, TopicSpec
from flux_common.contracts.envelope import Headers, Outgoing, body_bytes, headers_for
from flux_common.contracts.facts import Actor, AuditFact, FactSource
from flux_common.contracts.types import Event
from flux_common.kernel.clock import rfc3339
from flux_common.kernel.ids import derived_id, fact_partition, sha256_hex
from flux_common.kernel.positions import Position


@dataclass(frozen=True, slots=True)
class Emitter:
    """A service's pen: its name is the source of every event it writes."""

    service: str

    def event(
        self,
        topic: TopicSpec,
        spec: EventSpec,
        body: Event,
        *,
        agency_id: str,
        key: str | None,
        event_id: UUID,
        at: datetime,
        subject: str | None = None,
        traceparent: str | None = None,
    ) -> Outgoing:
        """Return the event `spec` for `topic`, ready for the outbox or a producer."""
        headers: Headers = headers_for(
            spec,
            event_id=str(event_id),
            source=f"flux/{self.service}",
            at=at,
            subject=subject,
            traceparent=traceparent,
        )
        return Outgoing(topic.of(agency_id), key, str(event_id), headers, body_bytes(body), agency_id)

    def fact(
        self,
        agency_id: str,
        type_: str,
        *,
        at: datetime,
        event_id: UUID,
        subject: bytes,
        outcome: Literal["ok", "refused", "failed"] = "ok",
        code: str | None = None,
        actor: Actor | None = None,
        position: Position | None = None,
        refs: dict[str, Any] | None = None,
        receipt: bool = False,
        traceparent: str | None = None,
    ) -> Outgoing:
        """Return the audit fact `type_` about `subject` (its digest is kept, not its bytes)."""
        body = AuditFact(
            v=1,
            agency_id=agency_id,
            ts=rfc3339(at),
            type=type_,
            outcome=outcome,
            code=code,
            actor=actor,
            src=self._source(position),
            subject_sha256=sha256_hex(subject),
            refs=refs or {},
            receipt=receipt,
        )
        headers = headers_for(
            catalogue.AUDIT_FACT,
            event_id=str(event_id),
            source=f"flux/{self.service}",
            at=at,
            traceparent=traceparent,
        )
        place = fact_partition(agency_id, catalogue.AUDIT.kafka_partitions)
        return Outgoing(
            catalogue.AUDIT.name, agency_id, str(event_id), headers, body_bytes(body), agency_id, kafka_partition=place
        )

    def attest(self, event: Outgoing, type_: str, *, at: datetime, **more: Any) -> Outgoing:
        """Return the fact that `event` was decided, with its id and digest, asking for a receipt."""
        refs = {"event_id": event.event_id} | more.pop("refs", {})
        return self.fact(
            event.agency_id,
            type_,
            at=at,
            event_id=derived_id(["fact", event.event_id]),
            subject=event.value,
            refs=refs,
            receipt=more.pop("receipt", True),
            **more,
        )

    def _source(self, position: Position | None) -> FactSource:
        if position is None:
            return FactSource(service=self.service)
        return FactSource(
            service=self.service,
            topic=position.tp.topic,
            kafka_partition=position.tp.kafka_partition,
            offset=position.offset,
        )
