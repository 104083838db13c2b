"""Work items going out to transform, and the fences that call them back."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from flux_common.contracts.requests import Destination, OnReject, Partitioning, Source
from flux_common.contracts.types import (
    AgencyId,
    ContentType,
    Count,
    Digest,
    Event,
    ItemKindName,
    Label,
    LabelName,
    Positive,
    RequestId,
    SafeInteger,
    UseCase,
    Uuid,
    VersionText,
)


class Job(Event):
    """What a run wants of every item: the parts of its request that a worker needs."""

    source: Source
    destination: Destination
    content_type: ContentType
    use_case: UseCase
    partitioning: Partitioning
    on_reject: OnReject
    options: Annotated[dict[LabelName, Label | SafeInteger | bool], Field(max_length=64)]
    labels: Annotated[dict[LabelName, Label], Field(max_length=64)]


class PlanRange(Event):
    """The objects of one partition: `count` lines of the plan file from line `first` (0 is the first object)."""

    first: Count
    count: Positive


class ChainHead(Event):
    """A finished partition: its number, the number of its slices and the digest of its last slice record."""

    number: Count
    last_seq: Positive
    head: Digest


class GatheredIndex(Event):
    """A finished gather step: its number and the digest of the index file it wrote."""

    number: Count
    index_digest: Digest


class WorkDispatched(Event):
    """`flux.work.dispatched.v1`: do this item, under this term.

    `plan` names nothing but the job. `extract` has the range, and where to go on: `next_seq`, `cursor` (index of the
    next object inside the range) and `chain_head` (the plan digest at seq 1). `gather` has up to 1,000 heads,
    `finalize` the indexes. `transform_version` is set once the plan step has named it.
    """

    agency_id: AgencyId
    run_id: Uuid
    request_id: RequestId
    run_attempt: Positive
    kind: ItemKindName
    number: Count
    term: Positive
    attempt: Count
    job: Job
    transform_version: VersionText | None = None
    plan_digest: Digest | None = None
    range: PlanRange | None = None
    next_seq: Positive = 1
    cursor: Count = 0
    chain_head: Digest | None = None
    heads: Annotated[list[ChainHead], Field(max_length=1000)] = Field(default_factory=list)
    indexes: Annotated[list[GatheredIndex], Field(max_length=1000)] = Field(default_factory=list)


class WorkFenced(Event):
    """`flux.work.fenced.v1`: drop what is older.

    Of a run: items with `run_attempt` below `run_attempt_min`. Of an item: terms below `term_min`.
    """

    agency_id: AgencyId
    run_id: Uuid
    run_attempt_min: Positive | None = None
    kind: ItemKindName | None = None
    number: Count | None = None
    term_min: Positive | None = None
