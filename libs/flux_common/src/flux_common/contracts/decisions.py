"""What Flux answers to a request: ingest's decisions, and the dead letters of records that cannot be answered."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from flux_common.contracts.types import (
    AgencyId,
    CodeText,
    CommandId,
    CommandName,
    Count,
    Digest,
    Event,
    Positive,
    RecordPosition,
    RequestId,
    Uuid,
    Violation,
)


class RunAccepted(Event):
    """`flux.run.accepted.v1`: the run exists from now on."""

    agency_id: AgencyId
    request_id: RequestId
    run_id: Uuid
    request_sha256: Digest
    position: RecordPosition


class RunRepeated(Event):
    """`flux.run.repeated.v1`: the same body was accepted before, at `first`; nothing else happens."""

    agency_id: AgencyId
    request_id: RequestId
    run_id: Uuid
    request_sha256: Digest
    position: RecordPosition
    first: RecordPosition


class Refusal(Event):
    """A request that is refused: the code, and for a schema violation where; never a value."""

    agency_id: AgencyId
    request_id: RequestId | None = None
    code: CodeText
    message: Annotated[str, Field(max_length=512)]
    violations: Annotated[list[Violation], Field(max_length=32)] = Field(default_factory=list)
    position: RecordPosition


class RunRejected(Refusal):
    """`flux.run.rejected.v1`: nothing happens; the same id may be sent again."""


class CommandAccepted(Event):
    """`flux.run.command-accepted.v1`: the command is on its way; the completions topic says what it did."""

    agency_id: AgencyId
    request_id: RequestId
    command_id: CommandId
    command: CommandName
    run_id: Uuid
    repeated: bool
    position: RecordPosition


class CommandRejected(Refusal):
    """`flux.run.command-rejected.v1`: nothing happens."""

    command_id: CommandId | None = None


class RecordDeadLettered(Event):
    """`flux.record.dead-lettered.v1`: a record was put aside; its position and digest, never its bytes."""

    agency_id: AgencyId
    position: RecordPosition
    sha256: Digest
    code: CodeText
    violations: Annotated[list[Violation], Field(max_length=32)] = Field(default_factory=list)


class OffsetRange(Event):
    """Offsets of one Kafka partition, both ends included."""

    first: Count
    last: Count


class IntakeFlooded(Event):
    """`flux.intake.flooded.v1`: past the agency's refusals of a minute, the one answer to every record in `offsets`.

    None of them is carried out. `position` is the first of them, `codes` says how often what was wrong; records between
    the ranges have answers of their own.
    """

    agency_id: AgencyId
    code: CodeText
    message: Annotated[str, Field(max_length=512)]
    position: RecordPosition
    offsets: Annotated[list[OffsetRange], Field(min_length=1, max_length=10_000)]
    count: Positive
    codes: Annotated[dict[CodeText, Positive], Field(max_length=64)]

    def answers(self, offset: int) -> bool:
        """Tell whether the record at `offset` of this Kafka partition is among them."""
        return any(one.first <= offset <= one.last for one in self.offsets)
