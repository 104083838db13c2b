"""The words of the work: what checkpoint hands out, in the form in which transform thinks about it.

The contract models (`flux_common.contracts.work`) are what travels; these are frozen values for decisions and ports,
so that the domain does not depend on how events are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flux_common.kernel.ids import ItemKind, item_name


@dataclass(frozen=True, slots=True)
class Job:
    """What a run wants of each of its items."""

    source_uri: str
    destination_uri: str
    content_type: str
    use_case: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    partition_objects_max: int = 500
    partition_bytes_max: int = 2**30
    options: Mapping[str, str | int | bool] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a finished partition's chain: the digest of its last slice record, and how many there are."""

    partition: int
    last_seq: int
    digest: str


@dataclass(frozen=True, slots=True)
class IndexName:
    """A finished gather step: its number and the digest of its index file."""

    number: int
    digest: str


@dataclass(frozen=True, slots=True)
class Item:
    """One work item under one term. Only the fields of its kind are set.

    `first` and `count` are the partition's range of plan lines; `cursor` counts inside that range; `chain_head` is the
    digest of the record of slice `next_seq - 1`, and the plan digest before the first slice.
    """

    agency_id: str
    run_id: str
    request_id: str
    run_attempt: int
    kind: ItemKind
    number: int
    term: int
    job: Job
    transform_version: str | None = None
    plan_digest: str | None = None
    first: int = 0
    count: int = 0
    next_seq: int = 1
    cursor: int = 0
    chain_head: str | None = None
    heads: tuple[Head, ...] = ()
    indexes: tuple[IndexName, ...] = ()

    @property
    def name(self) -> str:
        """Return `run_id/kind/number`."""
        return item_name(self.run_id, self.kind, self.number)


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What the plan step reports: the stored plan's digest and how many objects each partition has, in order."""

    digest: str
    objects: int
    bytes: int
    partitions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an item ended well. extract: `last_seq` and `head`; gather, finalize: `result_digest` and what it holds."""

    last_seq: int = 0
    head: str | None = None
    result_digest: str | None = None
    manifest_uri: str | None = None
    files: int | None = None
    rows: int | None = None
