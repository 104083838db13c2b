"""Every topic and every event of Flux, declared once.

`schemas/catalogue.json`, the topics job, the ACLs and the manifests are made from this. Topics of one agency are
templates (`flux.<agency>.…`); the agency id has no dots, so a prefix never matches another agency.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from flux_common.contracts import decisions, facts, progress, requests, runs, work
from flux_common.contracts.types import Event

DAY_MS: Final = 86_400_000
REPLICATION: Final = 3  # outside development
# The active segment is never compacted: closing it hourly bounds what a reader of the whole topic must read.
HOURLY_SEGMENTS: Final = {"segment.ms": "3600000"}
Service = Literal["producer", "downstream", "agency", "ingest", "checkpoint", "transform", "audit"]


@dataclass(frozen=True, slots=True)
class EventSpec:
    """One event: its `ce_type` and the model of its body."""

    ce_type: str
    model: type[Event]

    @property
    def name(self) -> str:
        """Return the type without `flux.` and the version: the name of its folder under `schemas/events`."""
        return self.ce_type.removeprefix("flux.").rsplit(".", 1)[0]


RUN_REQUESTED: Final = EventSpec("flux.run.requested.v1", requests.RunRequested)
COMMAND_REQUESTED: Final = EventSpec("flux.run.command-requested.v1", requests.CommandRequested)
RUN_ACCEPTED: Final = EventSpec("flux.run.accepted.v1", decisions.RunAccepted)
RUN_REPEATED: Final = EventSpec("flux.run.repeated.v1", decisions.RunRepeated)
RUN_REJECTED: Final = EventSpec("flux.run.rejected.v1", decisions.RunRejected)
COMMAND_ACCEPTED: Final = EventSpec("flux.run.command-accepted.v1", decisions.CommandAccepted)
COMMAND_REJECTED: Final = EventSpec("flux.run.command-rejected.v1", decisions.CommandRejected)
INTAKE_FLOODED: Final = EventSpec("flux.intake.flooded.v1", decisions.IntakeFlooded)
RUN_COMPLETED: Final = EventSpec("flux.run.completed.v1", runs.RunCompleted)
RUN_FAILED: Final = EventSpec("flux.run.failed.v1", runs.RunFailed)
RUN_CANCELLED: Final = EventSpec("flux.run.cancelled.v1", runs.RunCancelled)
COMMAND_APPLIED: Final = EventSpec("flux.run.command-applied.v1", runs.CommandApplied)
COMMAND_REFUSED: Final = EventSpec("flux.run.command-refused.v1", runs.CommandRefused)
RECORD_DEAD_LETTERED: Final = EventSpec("flux.record.dead-lettered.v1", decisions.RecordDeadLettered)
RUN_ADMITTED: Final = EventSpec("flux.run.admitted.v1", runs.RunAdmitted)
COMMAND_ADMITTED: Final = EventSpec("flux.run.command-admitted.v1", runs.CommandAdmitted)
WORK_DISPATCHED: Final = EventSpec("flux.work.dispatched.v1", work.WorkDispatched)
WORK_FENCED: Final = EventSpec("flux.work.fenced.v1", work.WorkFenced)
STARTED: Final = EventSpec("flux.progress.started.v1", progress.Started)
PLANNED: Final = EventSpec("flux.progress.planned.v1", progress.Planned)
SLICED: Final = EventSpec("flux.progress.sliced.v1", progress.SliceRecord)
FINISHED: Final = EventSpec("flux.progress.finished.v1", progress.Finished)
FAILED: Final = EventSpec("flux.progress.failed.v1", progress.Failed)
ALIVE: Final = EventSpec("flux.progress.alive.v1", progress.Alive)
AUDIT_FACT: Final = EventSpec("flux.audit.fact.v1", facts.AuditFact)
AUDIT_SEALED: Final = EventSpec("flux.audit.sealed.v1", facts.AuditSealed)
TREE_HEAD_SIGNED: Final = EventSpec("flux.audit.tree-head-signed.v1", facts.TreeHeadSigned)
LANE_WATERMARK: Final = EventSpec("flux.audit.lane-watermark.v1", facts.LaneWatermark)
RELAY_CURSOR: Final = EventSpec("flux.relay.cursor.v1", facts.RelayCursor)


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic, or one topic per agency where the name holds `<agency>`. Sizes in bytes, times in milliseconds.

    `record_bytes_max` becomes `max.message.bytes`; clients stay below it (a refused batch poisons its producer).
    """

    name: str
    key: str
    events: tuple[EventSpec, ...]
    producers: tuple[Service, ...]
    consumers: tuple[Service, ...]
    kafka_partitions: int
    retention_ms: int
    cleanup_policy: str = "delete"
    timestamp_type: Literal["CreateTime", "LogAppendTime"] = "CreateTime"
    record_bytes_max: int = 2 * 2**20
    transactional: bool = True
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def per_agency(self) -> bool:
        """Tell whether each agency has a topic of its own."""
        return "<agency>" in self.name

    def of(self, agency_id: str) -> str:
        """Return the name of this topic for one agency."""
        return self.name.replace("<agency>", agency_id)

    def config(self, *, development: bool) -> dict[str, str]:
        """Return the topic's settings for the broker; outside development two replicas must have a record."""
        base = {
            "cleanup.policy": self.cleanup_policy,
            "retention.ms": str(self.retention_ms),
            "message.timestamp.type": self.timestamp_type,
            "max.message.bytes": str(self.record_bytes_max),
            "min.insync.replicas": "1" if development else "2",
        }
        return base | self.settings


REQUESTS: Final = TopicSpec(
    name="flux.<agency>.run.requests.v1",
    key="request_id",
    events=(RUN_REQUESTED, COMMAND_REQUESTED),
    producers=("producer",),
    consumers=("ingest",),
    kafka_partitions=3,
    retention_ms=14 * DAY_MS,
    timestamp_type="LogAppendTime",
    transactional=False,
)
DECISIONS: Final = TopicSpec(
    name="flux.<agency>.run.decisions.v1",
    key="request_id",
    events=(RUN_ACCEPTED, RUN_REPEATED, RUN_REJECTED, COMMAND_ACCEPTED, COMMAND_REJECTED, INTAKE_FLOODED),
    producers=("ingest",),
    consumers=("producer",),
    kafka_partitions=3,
    retention_ms=30 * DAY_MS,
)
COMPLETIONS: Final = TopicSpec(
    name="flux.<agency>.run.completions.v1",
    key="run_id",
    events=(RUN_COMPLETED, RUN_FAILED, RUN_CANCELLED, COMMAND_APPLIED, COMMAND_REFUSED),
    producers=("checkpoint",),
    consumers=("downstream",),
    kafka_partitions=3,
    retention_ms=90 * DAY_MS,
)
RECEIPTS: Final = TopicSpec(
    name="flux.<agency>.audit.receipts.v1",
    key="event_id",
    events=(AUDIT_SEALED,),
    producers=("audit",),
    consumers=("downstream",),
    kafka_partitions=3,
    retention_ms=90 * DAY_MS,
)
DEAD_LETTERS: Final = TopicSpec(
    name="flux.<agency>.dead-letters.v1",
    key="source position",
    events=(RECORD_DEAD_LETTERED,),
    producers=("ingest", "checkpoint"),
    consumers=("agency",),
    kafka_partitions=1,
    retention_ms=90 * DAY_MS,
)
RUNS: Final = TopicSpec(
    name="flux-internal.runs.v1",
    key="run_id",
    events=(RUN_ADMITTED, COMMAND_ADMITTED),
    producers=("ingest",),
    consumers=("checkpoint",),
    kafka_partitions=6,
    retention_ms=14 * DAY_MS,
)
WORK: Final = TopicSpec(
    name="flux-internal.work.v1",
    key="run_id/kind/number/term",
    events=(WORK_DISPATCHED,),
    producers=("checkpoint",),
    consumers=("transform",),
    kafka_partitions=12,
    retention_ms=2 * DAY_MS,
)
FENCES: Final = TopicSpec(
    name="flux-internal.fences.v1",
    key="run_id or run_id/kind/number",
    events=(WORK_FENCED,),
    producers=("checkpoint",),
    consumers=("transform",),
    kafka_partitions=1,
    retention_ms=7 * DAY_MS,
    cleanup_policy="compact,delete",
    settings=HOURLY_SEGMENTS,
)
PROGRESS: Final = TopicSpec(
    name="flux-internal.progress.v1",
    key="run_id",
    events=(STARTED, PLANNED, SLICED, FINISHED, FAILED, ALIVE),
    producers=("transform",),
    consumers=("checkpoint",),
    kafka_partitions=6,
    retention_ms=14 * DAY_MS,
    timestamp_type="LogAppendTime",
    transactional=False,
)
AUDIT: Final = TopicSpec(
    name="flux-internal.audit.v1",
    key="agency_id",
    events=(AUDIT_FACT,),
    producers=("ingest", "checkpoint"),
    consumers=("audit",),
    kafka_partitions=5,
    retention_ms=30 * DAY_MS,
)
RELAY_CURSORS: Final = TopicSpec(
    name="flux-internal.relay-cursors.v1",
    key="service/shard",
    events=(RELAY_CURSOR,),
    producers=("ingest", "checkpoint", "audit"),
    consumers=("ingest", "checkpoint", "audit"),
    kafka_partitions=12,
    retention_ms=-1,
    cleanup_policy="compact",
    settings=HOURLY_SEGMENTS,
)
TREE_HEADS: Final = TopicSpec(
    name="flux-internal.tree-heads.v1",
    key="agency_id or _lane/n",
    events=(TREE_HEAD_SIGNED, LANE_WATERMARK),
    producers=("audit",),
    consumers=("audit", "ingest"),
    kafka_partitions=1,
    retention_ms=-1,
    cleanup_policy="compact",
    settings=HOURLY_SEGMENTS,
)

TOPICS: Final[tuple[TopicSpec, ...]] = (
    REQUESTS,
    DECISIONS,
    COMPLETIONS,
    RECEIPTS,
    DEAD_LETTERS,
    RUNS,
    WORK,
    FENCES,
    PROGRESS,
    AUDIT,
    RELAY_CURSORS,
    TREE_HEADS,
)


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """A consumer group of Flux's own: the members of `service` share the Kafka partitions of `topic`."""

    service: Service
    purpose: str
    topic: TopicSpec

    @property
    def name(self) -> str:
        """Return the group's name, before any prefix."""
        return f"flux-{self.service}-{self.purpose}"


INGEST_REQUESTS: Final = GroupSpec("ingest", "requests", REQUESTS)
CHECKPOINT_RUNS: Final = GroupSpec("checkpoint", "runs", RUNS)
CHECKPOINT_PROGRESS: Final = GroupSpec("checkpoint", "progress", PROGRESS)
TRANSFORM_WORK: Final = GroupSpec("transform", "work", WORK)
AUDIT_FACTS: Final = GroupSpec("audit", "facts", AUDIT)

GROUPS: Final = (INGEST_REQUESTS, CHECKPOINT_RUNS, CHECKPOINT_PROGRESS, TRANSFORM_WORK, AUDIT_FACTS)
# Who has an outbox that is relayed. The order is for ever: it says which Kafka partition keeps a relay's cursor.
RELAY_SERVICES: Final = ("ingest", "checkpoint", "audit")
EVENTS: Final[dict[str, EventSpec]] = {event.ce_type: event for topic in TOPICS for event in topic.events}


def topic_names(spec: TopicSpec, agencies: list[str]) -> list[str]:
    """Return the names that `spec` stands for."""
    return [spec.of(agency) for agency in sorted(agencies)] if spec.per_agency else [spec.name]


def lane_service(spec: TopicSpec) -> str | None:
    """Return the service with lanes that reads a topic, in whose ledger its records would be; None if there is none."""
    return next((name for name in spec.consumers if name in RELAY_SERVICES), None)


def agency_in(topic: str) -> str | None:
    """Return the agency that a topic belongs to; None for one of Flux's own, and for any name that is no topic's."""
    named = topic.removeprefix("flux.").partition(".")[0]
    return named if any(topic == spec.of(named) != spec.name for spec in TOPICS) else None


def relay_ids(service: str) -> str:
    """Return how the transactional ids of a service's relays begin; the shard follows."""
    return f"flux-internal.relay.{service}."
