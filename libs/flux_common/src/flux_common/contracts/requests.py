"""What a producer may ask for: a run, or a command on a run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from flux_common.contracts.dialect import Whole
from flux_common.contracts.types import (
    AgencyId,
    CommandId,
    CommandName,
    ContentType,
    Event,
    GlobPattern,
    Label,
    LabelName,
    Ratio,
    Reason,
    RequestId,
    SafeInteger,
    Uri,
    UseCase,
)


class Source(Event):
    """Where the objects lie, and which of them are meant (glob patterns over the key below the URI)."""

    uri: Uri
    include: Annotated[list[GlobPattern], Field(max_length=64)] = Field(default_factory=list)
    exclude: Annotated[list[GlobPattern], Field(max_length=64)] = Field(default_factory=list)


class Destination(Event):
    """The folder under which the run's own folder is written."""

    uri: Uri


class Partitioning(Event):
    """How large one partition may become."""

    objects_max: Annotated[int, Whole(1, 100_000)] = 500
    bytes_max: Annotated[int, Whole(1, 2**40)] = 2**30


class OnReject(Event):
    """What happens when objects cannot be used: `skip` lists them, `fail` fails the run at the first."""

    policy: Literal["skip", "fail"] = "skip"
    ratio_max: Ratio = 1.0


class RunRequested(Event):
    """`flux.run.requested.v1`: please turn this source into a dataset."""

    request_id: RequestId
    agency: AgencyId | None = None
    source: Source
    content_type: ContentType
    use_case: UseCase
    destination: Destination
    partitioning: Partitioning = Field(default_factory=Partitioning)
    on_reject: OnReject = Field(default_factory=OnReject)
    options: Annotated[dict[LabelName, Label | SafeInteger | bool], Field(max_length=64)] = Field(default_factory=dict)
    labels: Annotated[dict[LabelName, Label], Field(max_length=64)] = Field(default_factory=dict)


class CommandRequested(Event):
    """`flux.run.command-requested.v1`: please cancel, pause, resume or retry the run of `request_id`."""

    request_id: RequestId
    command_id: CommandId
    agency: AgencyId | None = None
    command: CommandName
    reason: Reason
