"""The envelope is CloudEvents 1.0 in Kafka binary mode: headers are attributes, the value is the body."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from flux_common.contracts.catalogue import EVENTS, RUN_REJECTED, WORK_FENCED
from flux_common.contracts.decisions import RunRejected
from flux_common.contracts.envelope import HEADER_BYTES_MAX, body_bytes, headers_for, read_body, read_envelope
from flux_common.contracts.types import RecordPosition
from flux_common.contracts.work import WorkFenced
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import ValidationFailed
from flux_common.kernel.positions import Received, TopicPartition

AT = datetime(2026, 11, 24, 9, 0, 0, 1000, tzinfo=UTC)
RUN_ID = "6f9a3c52-9d0b-5c7e-8a41-d3f1c0de0001"


def record(*headers: tuple[str, bytes | None]) -> Received:
    """Return a record with these headers."""
    return Received(TopicPartition("t", 0).at(0), None, None, headers)


def test_headers_are_cloudevents() -> None:
    """Required attributes, subject, schema, content type, trace and extensions, each as UTF-8 text."""
    headers = headers_for(
        WORK_FENCED,
        event_id="e-1",
        source="flux/checkpoint",
        at=AT,
        subject="r/extract/1",
        traceparent="00-1-2-01",
        extensions={"ce_fluxterm": "3"},
    )

    assert dict(headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"e-1",
        "ce_source": b"flux/checkpoint",
        "ce_type": b"flux.work.fenced.v1",
        "ce_time": b"2026-11-24T09:00:00.001Z",
        "ce_dataschema": b"flux:schemas/events/work.fenced/v1.schema.json",
        "content-type": b"application/json",
        "ce_subject": b"r/extract/1",
        "traceparent": b"00-1-2-01",
        "ce_fluxterm": b"3",
    }
    assert len(dict(headers)) == len(headers)


def test_an_envelope_is_read_back() -> None:
    """What was written is read; what Flux does not use, and a stranger's header, is left alone."""
    headers = headers_for(
        WORK_FENCED, event_id="e-1", source="s", at=AT, subject="r", traceparent="t", extensions={"ce_fluxseq": "1"}
    )
    envelope = read_envelope(record(*headers, ("authorization", b"\xff"), ("authorization", None)))

    assert (envelope.id, envelope.type, envelope.subject, envelope.traceparent, envelope.extensions) == (
        "e-1",
        "flux.work.fenced.v1",
        "r",
        "t",
        {"ce_fluxseq": "1"},
    )


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], Code.HEADER_INVALID),
        ([("ce_id", b"1")], Code.HEADER_INVALID),
        ([("ce_type", b"t")], Code.HEADER_INVALID),
        ([("ce_id", b"1"), ("ce_id", b"2"), ("ce_type", b"t")], Code.HEADER_INVALID),
        ([("ce_id", b"1"), ("ce_type", b"t"), ("ce_type", b"t")], Code.HEADER_INVALID),
        ([("ce_id", None), ("ce_type", b"t")], Code.HEADER_INVALID),
        ([("ce_id", b"1"), ("ce_type", b"t"), ("traceparent", b"a"), ("traceparent", b"b")], Code.HEADER_INVALID),
        ([("ce_id", b"1"), ("ce_type", b"x" * (HEADER_BYTES_MAX + 1))], Code.HEADER_INVALID),
        ([("ce_id", b"\xff"), ("ce_type", b"t")], Code.NOT_UTF8),
    ],
)
def test_hostile_headers(headers: list[tuple[str, bytes | None]], code: Code) -> None:
    """Missing, repeated, empty, oversized and undecodable attributes are refused."""
    with pytest.raises(ValidationFailed) as caught:
        read_envelope(record(*headers))

    assert caught.value.code == code


def test_a_body_has_no_absent_members() -> None:
    """A body is compact UTF-8 JSON in the model's order; what is None is left out, and read back as None."""
    body = WorkFenced(agency_id="nasa", run_id=RUN_ID, run_attempt_min=2)
    written = body_bytes(body)

    assert written == f'{{"agency_id":"nasa","run_id":"{RUN_ID}","run_attempt_min":2}}'.encode()
    assert read_body(WORK_FENCED, written) == body


def test_a_decision_without_a_request_id_keeps_its_contract() -> None:
    """A refusal of something unreadable names its position only, and can still be read."""
    body = RunRejected(
        agency_id="nasa",
        code=Code.JSON_INVALID,
        message="é",
        position=RecordPosition(topic="t", kafka_partition=0, offset=1),
    )

    assert "request_id" not in json.loads(body_bytes(body))
    assert read_body(RUN_REJECTED, body_bytes(body)) == body


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, Code.VALUE_MISSING),
        (b"", Code.SCHEMA_VIOLATION),
        (b'{"agency_id":"secret-canary"}', Code.SCHEMA_VIOLATION),
        (b'{"agency_id":"nasa","run_id":"secret-canary"}', Code.SCHEMA_VIOLATION),
        (b"\xff", Code.SCHEMA_VIOLATION),
    ],
)
def test_a_body_that_is_none(value: bytes | None, code: Code) -> None:
    """What breaks the model is refused, and neither the error nor its cause repeats it."""
    with pytest.raises(ValidationFailed) as caught:
        read_body(WORK_FENCED, value)

    assert caught.value.code == code
    assert "secret-canary" not in f"{caught.value}{caught.value.__cause__}"


@pytest.mark.parametrize("ce_type", EVENTS)
def test_event_types_are_facts_with_a_version(ce_type: str) -> None:
    """Every type is `flux.<noun>.<past tense or state>.v1`, and its name is the part between."""
    spec: Any = EVENTS[ce_type]

    assert re.fullmatch(r"flux\.[a-z]+\.[a-z-]+\.v1", ce_type)
    assert ce_type == f"flux.{spec.name}.v1"
