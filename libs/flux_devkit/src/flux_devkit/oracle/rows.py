"""The rows of one installation, as frozen values with the columns that the oracle looks at (tables.sql)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from uuid import UUID

from flux_common.kernel.positions import Position, TopicPartition


@dataclass(frozen=True, slots=True)
class LaneRow:
    """A Kafka partition as its service reads it."""

    service: str
    topic: str
    kafka_partition: int
    topic_id: str
    owner_epoch: int
    next_offset: int
    ledger_floor: int
    controls: int

    @property
    def tp(self) -> TopicPartition:
        """Return the lane's Kafka partition."""
        return TopicPartition(self.topic, self.kafka_partition)


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One Advance: what became of [from_offset, to_offset)."""

    service: str
    topic: str
    kafka_partition: int
    from_offset: int
    to_offset: int
    effects: int
    duplicates: int
    fenced: int
    dead_letters: int
    controls: int
    lost: int

    @property
    def tp(self) -> TopicPartition:
        """Return the lane's Kafka partition."""
        return TopicPartition(self.topic, self.kafka_partition)


@dataclass(frozen=True, slots=True)
class ExceptionRow:
    """Offsets that had no effect, both ends included, and why."""

    service: str
    topic: str
    kafka_partition: int
    first_offset: int
    last_offset: int
    fate: str
    code: str | None

    @property
    def tp(self) -> TopicPartition:
        """Return the lane's Kafka partition."""
        return TopicPartition(self.topic, self.kafka_partition)


@dataclass(frozen=True, slots=True)
class Placed:
    """A row that names the record it was decided from."""

    agency_id: str
    topic: str
    kafka_partition: int
    kafka_offset: int

    @property
    def position(self) -> Position:
        """Return the record's position."""
        return TopicPartition(self.topic, self.kafka_partition).at(self.kafka_offset)


@dataclass(frozen=True, slots=True)
class DeadLetterRow(Placed):
    """A record put aside."""

    service: str
    sha256: bytes
    code: str


@dataclass(frozen=True, slots=True)
class RequestRow(Placed):
    """An accepted request."""

    request_id: str
    run_id: UUID
    sha256: bytes


@dataclass(frozen=True, slots=True)
class CommandRow(Placed):
    """An accepted command."""

    command_id: str
    request_id: str
    sha256: bytes


@dataclass(frozen=True, slots=True)
class RejectionRow(Placed):
    """A refused request or command."""

    request_id: str | None
    code: str


@dataclass(frozen=True, slots=True)
class FloodRow(Placed):
    """Refused records that one decision answered: ranges of offsets, both ends included; its own offset is the last."""

    firsts: list[int]
    lasts: list[int]
    refused: int

    def positions(self) -> list[Position]:
        """Return the position of each of the records."""
        tp = TopicPartition(self.topic, self.kafka_partition)
        pairs = zip(self.firsts, self.lasts, strict=True)
        return [tp.at(offset) for first, last in pairs for offset in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class UseRow(Placed):
    """A token or proof that was spent."""

    use_digest: bytes
    sha256: bytes


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """An event that is decided and not known to be published; `parked` where the broker refused it."""

    service: str
    parked: bool
    id: int
    shard: int
    agency_id: str
    number: int | None
    event_id: UUID
    topic: str
    key: str | None
    headers: str
    value: bytes


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """A relay's count: the last number given, and the last known to be published."""

    service: str
    shard: int
    relay_counter: int
    last_cursor: int


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run."""

    agency_id: str
    run_id: UUID
    request_id: str
    request: str
    request_sha256: bytes
    state: str
    run_attempt: int
    terminal_attempt: int
    cause: str | None
    code: str | None
    plan_digest: bytes | None
    transform_version: str | None
    objects: int
    bytes_planned: int
    partitions: int
    partition_objects: list[int]
    partitions_made: int
    objects_made: int
    read: int
    written: int
    rejected: int
    bytes_in: int
    bytes_out: int
    manifest_uri: str | None
    manifest_digest: bytes | None
    manifest_files: int | None
    manifest_rows: int | None
    kafka_partition: int
    kafka_offset: int


@dataclass(frozen=True, slots=True)
class ItemRow:
    """A partition or step of a run."""

    agency_id: str
    run_id: UUID
    kind: str
    number: int
    state: str
    term: int
    first_object: int
    object_count: int
    last_seq: int
    cursor: int
    chain_head: bytes | None
    result_digest: bytes | None
    read: int
    written: int
    rejected: int
    bytes_in: int
    bytes_out: int
    rejects: str

    @property
    def name(self) -> str:
        """Return `run_id/kind/number`."""
        return f"{self.run_id}/{self.kind}/{self.number}"


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One applied event of a run; `event_no` is the order of writing inside an agency."""

    agency_id: str
    event_no: int
    run_id: UUID
    kind: str | None
    number: int | None
    term: int | None
    seq: int | None
    type: str
    code: str | None
    body: bytes | None
    source: str
    kafka_partition: int | None
    kafka_offset: int | None


@dataclass(frozen=True, slots=True)
class HashRow:
    """One applied slice."""

    agency_id: str
    run_id: UUID
    number: int
    seq: int
    prev: bytes
    hash: bytes
    kafka_partition: int
    kafka_offset: int

    @property
    def name(self) -> str:
        """Return `run_id/extract/number#seq`."""
        return f"{self.run_id}/extract/{self.number}#{self.seq}"


@dataclass(frozen=True, slots=True)
class LeafRow:
    """One sealed fact; `event_id` is the fact's own id, `receipt_for` the event that waits for its proof."""

    agency_id: str
    seq: int
    event_id: UUID
    entry: bytes
    leaf_hash: bytes
    receipt_for: UUID | None
    kafka_partition: int
    kafka_offset: int


@dataclass(frozen=True, slots=True)
class HeadRow:
    """The state of an agency's tree."""

    agency_id: str
    size: int
    frontier: list[bytes]
    root: bytes
    signed_size: int
    signed_head: str | None


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A stored full subtree."""

    agency_id: str
    level: int
    index: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class AgendaRow:
    """A run that the dispatcher will look at."""

    shard: int
    agency_id: str
    run_id: UUID


@dataclass(frozen=True, slots=True)
class Tables:
    """Every row that the oracle looks at, of one snapshot. Each field is a query of tables.sql."""

    lanes: tuple[LaneRow, ...] = ()
    ledger: tuple[LedgerRow, ...] = ()
    exceptions: tuple[ExceptionRow, ...] = ()
    dead_letters: tuple[DeadLetterRow, ...] = ()
    outbox: tuple[OutboxRow, ...] = ()
    leases: tuple[LeaseRow, ...] = ()
    runs: tuple[RunRow, ...] = ()
    items: tuple[ItemRow, ...] = ()
    history: tuple[HistoryRow, ...] = ()
    hashes: tuple[HashRow, ...] = ()
    leaves: tuple[LeafRow, ...] = ()
    heads: tuple[HeadRow, ...] = ()
    nodes: tuple[NodeRow, ...] = ()
    requests: tuple[RequestRow, ...] = ()
    commands: tuple[CommandRow, ...] = ()
    rejections: tuple[RejectionRow, ...] = ()
    floods: tuple[FloodRow, ...] = ()
    uses: tuple[UseRow, ...] = ()
    agenda: tuple[AgendaRow, ...] = ()


ROWS: dict[str, type] = {
    "lanes": LaneRow,
    "ledger": LedgerRow,
    "exceptions": ExceptionRow,
    "dead_letters": DeadLetterRow,
    "outbox": OutboxRow,
    "leases": LeaseRow,
    "runs": RunRow,
    "items": ItemRow,
    "history": HistoryRow,
    "hashes": HashRow,
    "leaves": LeafRow,
    "heads": HeadRow,
    "nodes": NodeRow,
    "requests": RequestRow,
    "commands": CommandRow,
    "rejections": RejectionRow,
    "floods": FloodRow,
    "uses": UseRow,
    "agenda": AgendaRow,
}
assert list(ROWS) == [one.name for one in fields(Tables)]
