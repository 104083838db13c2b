"""Strict field types. Each says its grammar once; the schemas under `schemas/` repeat it from here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints


class Event(BaseModel):
    """The body of an event: strict (nothing is coerced), closed (nothing is ignored), frozen."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def _bare_slash(value: str) -> str:
    if any(part in {".", ".."} for part in value.split("/")):
        raise ValueError("dot segments are not allowed")
    return value


AGENCY_PATTERN = r"^[a-z0-9][a-z0-9-]{1,62}$"

AgencyId = Annotated[str, StringConstraints(pattern=AGENCY_PATTERN)]
FactAgencyId = Annotated[str, StringConstraints(pattern=r"^([a-z0-9][a-z0-9-]{1,62}|_system)$")]
RequestId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
CommandId = RequestId
Uuid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
CodeText = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{1,63}$")]
Timestamp = Annotated[
    str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$")
]
Pointer = Annotated[str, StringConstraints(max_length=1024)]
Uri = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9+.-]{1,15}://[^\s\x00-\x1f]{0,2000}$")]
GlobPattern = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Label = Annotated[str, StringConstraints(max_length=256)]
LabelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=512)]
FileName = Annotated[str, StringConstraints(min_length=1, max_length=512), AfterValidator(_bare_slash)]
ObjectKey = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
WorkerName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
VersionText = Annotated[str, StringConstraints(min_length=1, max_length=256)]

Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Positive = Annotated[int, Field(ge=1, le=2**53 - 1)]
Ratio = Annotated[float, Field(ge=0, le=1, strict=False)]

ContentType = Literal["images", "documents", "text", "mixed"]
UseCase = Literal["vr", "ai-training", "research", "preservation"]
ItemKindName = Literal["plan", "extract", "gather", "finalize"]
Cause = Literal["input", "transform", "infrastructure", "policy"]
CommandName = Literal["cancel", "pause", "resume", "retry"]


class RecordPosition(Event):
    """Where a record stands: topic, Kafka partition, offset."""

    topic: Annotated[str, StringConstraints(min_length=1, max_length=249)]
    kafka_partition: Count
    offset: Count


class Violation(Event):
    """What a value breaks: the JSON pointer to the place and the schema keyword; never the value."""

    pointer: Pointer
    keyword: Annotated[str, StringConstraints(max_length=64)]
