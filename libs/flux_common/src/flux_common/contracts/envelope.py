"""The envelope: CloudEvents 1.0 in Kafka binary mode.

Attributes are headers (`ce_*`, `content-type`), the body is the record's value. Source: CloudEvents 1.0.2, Kafka
protocol binding §3.2. Reading is lenient about what Flux does not need and strict about what it does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from flux_common.contracts.catalogue import EventSpec
from flux_common.contracts.types import Event
from flux_common.kernel.clock import rfc3339
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import ValidationFailed
from flux_common.kernel.positions import Received

Headers = list[tuple[str, bytes]]
HEADER_BYTES_MAX: Final = 16 * 1024
HEADERS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One event ready to be written: topic, key, headers and value."""

    topic: str
    key: str | None
    event_id: str
    headers: Headers
    value: bytes
    agency_id: str
    kafka_partition: int | None = None


@dataclass(frozen=True, slots=True)
class Envelope:
    """The attributes of a received event that Flux uses."""

    id: str
    type: str
    subject: str | None
    traceparent: str | None
    extensions: dict[str, str] = field(default_factory=dict)


def body_bytes(body: Event) -> bytes:
    """Return a body's JSON: compact, in the model's order, without absent optional members."""
    return json.dumps(
        body.model_dump(mode="json", exclude_none=True), separators=(",", ":"), ensure_ascii=False
    ).encode()


def headers_for(
    spec: EventSpec,
    *,
    event_id: str,
    source: str,
    at: datetime,
    subject: str | None = None,
    traceparent: str | None = None,
    extensions: dict[str, str] | None = None,
) -> Headers:
    """Return the headers of an event `spec`."""
    named = {
        "ce_specversion": "1.0",
        "ce_id": event_id,
        "ce_source": source,
        "ce_type": spec.ce_type,
        "ce_time": rfc3339(at),
        "ce_dataschema": f"flux:schemas/events/{spec.name}/v1.schema.json",
        "content-type": "application/json",
    }
    if subject is not None:
        named["ce_subject"] = subject
    if traceparent is not None:
        named["traceparent"] = traceparent
    named |= extensions or {}
    return [(name, value.encode()) for name, value in named.items()]


def read_envelope(
    record: Received, *, headers_max: int = HEADERS_MAX, header_bytes_max: int = HEADER_BYTES_MAX
) -> Envelope:
    """Return the envelope of a record.

    Raises:
        ValidationFailed: a needed header is missing, repeated, oversized or not UTF-8.
    """
    if len(record.headers) > headers_max:
        raise ValidationFailed(Code.HEADER_INVALID, "There are too many headers")
    wanted = [name for name, _ in record.headers if name.startswith("ce_") or name == "traceparent"]
    texts = {name: _text(record, name, header_bytes_max) for name in wanted}
    if "ce_id" not in texts or "ce_type" not in texts:
        raise ValidationFailed(Code.HEADER_INVALID, "ce_id and ce_type are needed")
    return Envelope(
        id=texts["ce_id"],
        type=texts["ce_type"],
        subject=texts.get("ce_subject"),
        traceparent=texts.get("traceparent"),
        extensions={name: text for name, text in texts.items() if name.startswith("ce_flux")},
    )


def _text(record: Received, name: str, bytes_max: int) -> str:
    value = record.header(name)
    if value is None or len(value) > bytes_max:
        raise ValidationFailed(Code.HEADER_INVALID, "A header is repeated, empty or oversized")
    try:
        return value.decode()
    except UnicodeDecodeError as problem:
        raise ValidationFailed(Code.NOT_UTF8, "A header is not UTF-8") from problem


def read_body(spec: EventSpec, value: bytes | None) -> Any:
    """Return the body of an internal event as an instance of `spec.model`.

    Raises:
        ValidationFailed: there is no value, or it breaks the model.
    """
    if value is None:
        raise ValidationFailed(Code.VALUE_MISSING, "The record has no value")
    try:
        return spec.model.model_validate_json(value)
    except ValidationError as problem:
        raise ValidationFailed(Code.SCHEMA_VIOLATION, f"The value is no {spec.ce_type}") from problem
