"""Runs, items and reports as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

from flux_checkpoint.domain.states import ItemState, RunState
from flux_common.kernel.ids import ItemKind
from flux_common.kernel.positions import Position

ATTEMPTS_MAX = 5
GATHER_HEADS_MAX = 1000
REJECT_CODES_MAX = 64  # of an item, and of a run: what its completion can name
COUNT_MAX = 2**53 - 1  # the largest integer that every reader of JSON takes for itself (RFC 8259 §6)
NUMBER_MAX = 2**31 - 1  # of items, terms and slices: the database's integer

Cause = Literal["input", "transform", "infrastructure", "policy"]


@dataclass(frozen=True, slots=True, order=True)
class RunKey:
    """A run of an agency."""

    agency_id: str
    run_id: UUID


@dataclass(frozen=True, slots=True, order=True)
class ItemKey:
    """A work item: `run_id/kind/number` of an agency."""

    agency_id: str
    run_id: UUID
    kind: ItemKind
    number: int

    @property
    def run(self) -> RunKey:
        """Return the run that the item belongs to."""
        return RunKey(self.agency_id, self.run_id)

    def __str__(self) -> str:
        return f"{self.run_id}/{self.kind}/{self.number}"


@dataclass(frozen=True, slots=True)
class Counts:
    """Objects and bytes; `read` = `written` + `rejected`."""

    read: int = 0
    written: int = 0
    rejected: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.read + other.read,
            self.written + other.written,
            self.rejected + other.rejected,
            self.bytes_in + other.bytes_in,
            self.bytes_out + other.bytes_out,
        )


@dataclass(frozen=True, slots=True)
class Run:
    """What judging and dispatching need of a run."""

    key: RunKey
    request_id: str
    state: RunState
    run_attempt: int
    run_window: int
    agency_window: int
    on_reject: Literal["skip", "fail"]
    ratio_max: float
    admitted_at: datetime
    deadline: datetime
    pause_wanted: bool = False
    cancel_command_id: str | None = None
    cancel_deadline: datetime | None = None
    broken_code: str | None = None
    plan_digest: bytes | None = None
    transform_version: str | None = None
    objects: int = 0
    partitions: int = 0
    partition_objects: tuple[int, ...] = ()
    partitions_made: int = 0
    objects_made: int = 0
    traceparent: str | None = None
    destination_uri: str = ""  # as admitted


@dataclass(frozen=True, slots=True)
class Item:
    """What judging and dispatching need of an item. Digests are 32 bytes; `cursor` counts objects of its range.

    `last_slice` is when the last slice was heard of, or since when the present worker owes one.
    """

    key: ItemKey
    state: ItemState
    term: int
    attempt: int
    first_object: int = 0
    object_count: int = 0
    last_seq: int = 0
    cursor: int = 0
    chain_head: bytes | None = None
    result_digest: bytes | None = None
    counts: Counts = Counts()
    rejects: Mapping[str, int] = field(default_factory=dict)
    not_before: datetime | None = None
    failure_code: str | None = None
    failure_cause: Cause | None = None
    worker: str | None = None
    last_heard: datetime | None = None
    last_slice: datetime | None = None
    kafka_partition: int | None = None
    dispatched_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan's digest, size and cut: the number of objects of each partition."""

    digest: bytes
    objects: int
    bytes: int
    partitions: tuple[int, ...]
    transform_version: str


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice record as received: its own digest, the one before it, and what it did."""

    seq: int
    hash: bytes
    prev: bytes
    cursor: int
    counts: Counts
    rejects: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Finished:
    """An item is done: where its chain ends, or what a step made."""

    last_seq: int
    head: bytes | None
    result_digest: bytes | None = None
    manifest_uri: str | None = None
    files: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """An item could not be done."""

    last_seq: int
    head: bytes | None
    code: str
    cause: Cause
    transient: bool


@dataclass(frozen=True, slots=True)
class Started:
    """A worker began."""


@dataclass(frozen=True, slots=True)
class Alive:
    """A worker goes on."""


@dataclass(frozen=True, slots=True)
class Report:
    """A worker's word on an item, under the term that it was given."""

    item: ItemKey
    term: int
    worker: str | None
    what: Started | Alive | Planned | Slice | Finished | Failed
    position: Position
    heard_at: datetime
    event_type: str
    body: bytes
