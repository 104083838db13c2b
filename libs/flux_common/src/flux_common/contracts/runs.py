"""What passes inward about runs, and what comes out at their end."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from flux_common.contracts.requests import RunRequested
from flux_common.contracts.types import (
    AgencyId,
    Cause,
    CodeText,
    CommandId,
    CommandName,
    Count,
    Digest,
    Event,
    Positive,
    Reason,
    RequestId,
    Timestamp,
    Uri,
    Uuid,
)


class RunAdmitted(Event):
    """`flux.run.admitted.v1`: ingest accepted this request; checkpoint shall carry it out."""

    agency_id: AgencyId
    request_id: RequestId
    run_id: Uuid
    request: RunRequested
    request_sha256: Digest
    run_window: Positive
    agency_window: Positive
    admitted_at: Timestamp


class CommandAdmitted(Event):
    """`flux.run.command-admitted.v1`: ingest accepted this command; checkpoint applies or refuses it."""

    agency_id: AgencyId
    request_id: RequestId
    run_id: Uuid
    command_id: CommandId
    command: CommandName
    reason: Reason


class Counts(Event):
    """Objects and bytes: `read` = `written` + `rejected`, always."""

    read: Count
    written: Count
    rejected: Count
    bytes_in: Count
    bytes_out: Count


class Manifest(Event):
    """The one file from which everything of a dataset is reached."""

    uri: Uri
    sha256: Digest
    files: Count
    rows: Count


class RunCompleted(Event):
    """`flux.run.completed.v1`: the dataset is whole; only this event names its manifest."""

    agency_id: AgencyId
    request_id: RequestId
    run_id: Uuid
    run_attempt: Positive
    partitions: Positive
    objects: Positive
    counts: Counts
    rejects_by_code: Annotated[dict[CodeText, Count], Field(max_length=64)]
    plan_digest: Digest
    chain_root: Digest
    manifest: Manifest
    transform_version: str
    admitted_at: Timestamp
    completed_at: Timestamp


class RunFailed(Event):
    """`flux.run.failed.v1`: this attempt is over; *retry* begins another."""

    agency_id: AgencyId
    request_id: RequestId
    run_id: Uuid
    run_attempt: Positive
    cause: Cause
    code: CodeText
    message: Annotated[str, Field(max_length=512)]
    counts: Counts
    failed_at: Timestamp


class RunCancelled(Event):
    """`flux.run.cancelled.v1`: the run was ended by a command."""

    agency_id: AgencyId
    request_id: RequestId
    run_id: Uuid
    run_attempt: Positive
    command_id: CommandId
    counts: Counts
    cancelled_at: Timestamp


class CommandApplied(Event):
    """`flux.run.command-applied.v1`: the command changed the run's state."""

    agency_id: AgencyId
    request_id: RequestId
    run_id: Uuid
    command_id: CommandId
    command: CommandName
    state: Annotated[str, Field(max_length=16)]


class CommandRefused(Event):
    """`flux.run.command-refused.v1`: the command could not change anything."""

    agency_id: AgencyId
    request_id: RequestId
    run_id: Uuid
    command_id: CommandId
    command: CommandName
    code: CodeText
