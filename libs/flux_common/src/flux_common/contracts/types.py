"""Strict field types. Each says its grammar once; the schemas under `schemas/` repeat it from here.

A model and its schema must judge every JSON value alike, whoever reads the schema and with which library. What has no
form in JSON Schema is therefore no rule here, and patterns keep to what Rust, Python and ECMAScript read alike:
ASCII classes, anchors, no look-around. `dialect.py` holds what is left to be said to a Python reader.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from flux_common.contracts.dialect import ContractSchema, Whole

SAFE_INTEGER_MAX: Final = 2**53 - 1


class Event(BaseModel):
    """The body of an event: strict (nothing is coerced), closed (nothing is ignored), frozen; errors show no values."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    @classmethod
    def model_json_schema(
        cls,
        by_alias: bool | None = True,
        ref_template: str = "#/$defs/{model}",
        schema_generator: type[GenerateJsonSchema] = ContractSchema,
        mode: JsonSchemaMode = "validation",
        **more: Any,
    ) -> dict[str, Any]:
        """Return the JSON Schema (2020-12) that judges as this model does."""
        return super().model_json_schema(by_alias, ref_template, schema_generator, mode, **more)


def _real_instant(value: str) -> str:
    datetime.fromisoformat(value)
    return value


_SEGMENT = r"([^/.\x00-\x1f][^/\x00-\x1f]*|\.[^/.\x00-\x1f][^/\x00-\x1f]*|\.\.[^/\x00-\x1f]+)"
_PCHAR = r"([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"

AGENCY_PATTERN = r"^[a-z0-9][a-z0-9-]{1,62}$"
REQUEST_ID_PATTERN = r"^[A-Za-z0-9._:-]{1,128}$"

AgencyId = Annotated[str, StringConstraints(pattern=AGENCY_PATTERN)]
FactAgencyId = Annotated[str, StringConstraints(pattern=r"^([a-z0-9][a-z0-9-]{1,62}|_system)$")]
RequestId = Annotated[str, StringConstraints(pattern=REQUEST_ID_PATTERN)]
CommandId = RequestId
Uuid = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"),
    Field(json_schema_extra={"format": "uuid"}),
]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
CodeText = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{1,63}$")]
# RFC 3339 in UTC with milliseconds; the pattern leaves nothing but the length of the month to `format`.
Timestamp = Annotated[
    str,
    StringConstraints(
        pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])-[0-3][0-9]T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z$"
    ),
    AfterValidator(_real_instant),
    Field(json_schema_extra={"format": "date-time"}),
]
Pointer = Annotated[str, StringConstraints(max_length=1024)]
# RFC 3986 with an authority, without a password and without a fragment; other characters are percent-encoded.
Uri = Annotated[
    str,
    StringConstraints(
        max_length=2048,
        pattern=rf"^[a-z][a-z0-9+.-]{{1,15}}://([A-Za-z0-9._~-]+@)?[A-Za-z0-9._~-]*(:[0-9]{{1,5}})?"
        rf"(/{_PCHAR}*)*(\?({_PCHAR}|[/?])*)?$",
    ),
    Field(json_schema_extra={"format": "uri"}),
]
GlobPattern = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Label = Annotated[str, StringConstraints(max_length=256)]
LabelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=512)]
# A relative path: no empty segment, no `.` or `..`, no control characters.
FileName = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=rf"^{_SEGMENT}(/{_SEGMENT})*$")]
ObjectKey = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
WorkerName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
VersionText = Annotated[str, StringConstraints(min_length=1, max_length=256)]

Count = Annotated[int, Whole(0, SAFE_INTEGER_MAX)]
Positive = Annotated[int, Whole(1, SAFE_INTEGER_MAX)]
SafeInteger = Annotated[int, Whole(-SAFE_INTEGER_MAX, SAFE_INTEGER_MAX)]
One = Annotated[Literal[1], Whole(1, 1)]
Ratio = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]

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
