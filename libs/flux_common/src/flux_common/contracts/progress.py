"""What workers report. All of a run's reports are on one lane (key = run_id).

`sliced` has no model of its own: its value is the slice record's bytes and nothing else; the term and the seq are
headers (`ce_fluxterm`, `ce_fluxseq`) and must agree with the record.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from flux_common.contracts.types import (
    AgencyId,
    Cause,
    CodeText,
    Count,
    Digest,
    Event,
    FileName,
    ItemKindName,
    One,
    Positive,
    Uri,
    Uuid,
    VersionText,
    WorkerName,
)

PARTITIONS_MAX = 50_000


class Report(Event):
    """What every report names: the item and the term under which it was worked."""

    agency_id: AgencyId
    run_id: Uuid
    kind: ItemKindName
    number: Count
    term: Positive
    worker: WorkerName


class Started(Report):
    """`flux.progress.started.v1`: a worker has begun the item."""

    transform_version: VersionText


class Alive(Report):
    """`flux.progress.alive.v1`: the worker still works on the item."""

    counter: Positive


class Planned(Report):
    """`flux.progress.planned.v1`: the plan step is done.

    `partitions` holds the number of objects of each partition, in order; their sum is `objects`.
    """

    kind: Literal["plan"]
    plan_digest: Digest
    objects: Positive
    bytes: Count
    partitions: Annotated[list[Positive], Field(min_length=1, max_length=PARTITIONS_MAX)]
    transform_version: VersionText


class Finished(Report):
    """`flux.progress.finished.v1`: an extract, gather or finalize item is done.

    extract: `last_seq` and `head` name the end of the chain. gather: `result_digest` is the index file's digest.
    finalize: `result_digest` is the manifest's, with its URI and what it lists.
    """

    last_seq: Count
    head: Digest | None = None
    result_digest: Digest | None = None
    manifest_uri: Uri | None = None
    files: Count | None = None
    rows: Count | None = None


class Failed(Report):
    """`flux.progress.failed.v1`: the item could not be done; `transient` asks for another attempt."""

    last_seq: Count
    head: Digest | None = None
    code: CodeText
    cause: Cause
    transient: bool


class Output(Event):
    """One file that a slice wrote, named relative to the run's folder."""

    name: FileName
    sha256: Digest
    bytes: Count
    rows: Count


class Reject(Event):
    """How many objects of a slice were rejected with one code; the file with their keys is one of `outputs`."""

    code: CodeText
    count: Positive


class SliceRecord(Event):
    """What one slice did, as canonical JSON: the value of `flux.progress.sliced.v1`.

    It holds nothing that differs between two honest executions of one transform version. Its SHA-256 is the chain
    head; `prev` of seq 1 is the plan digest. `cursor` is the index, inside the partition's range, of the next object.
    `outputs` (with the file of rejected keys, if any) is sorted by name, `rejects` by code.
    """

    v: One
    agency_id: AgencyId
    run_id: Uuid
    partition: Count
    seq: Positive
    prev: Digest
    cursor: Positive
    read: Positive
    written: Count
    rejected: Count
    bytes_in: Count
    bytes_out: Count
    inputs_digest: Digest
    outputs: Annotated[list[Output], Field(max_length=64)]
    rejects: Annotated[list[Reject], Field(max_length=64)]
