"""Reading workers' reports: bytes in, values or a refusal out.

A slice record must be canonical and agree with its headers; one that is not breaks its run (`RunBroken`): a worker that
writes such a record is not to be trusted with the rest.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from flux_checkpoint.domain.model import (
    NUMBER_MAX,
    Alive,
    Counts,
    Failed,
    Finished,
    ItemKey,
    Planned,
    Report,
    Slice,
    Started,
)
from flux_common.contracts import catalogue, progress
from flux_common.contracts.canonical import decode_exact
from flux_common.contracts.envelope import Envelope, read_body, read_envelope
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import InvalidMessage, RunBroken, ValidationFailed
from flux_common.kernel.ids import sha256_hex
from flux_common.kernel.positions import Received

_BODIES = {
    event.ce_type: event
    for event in (catalogue.STARTED, catalogue.PLANNED, catalogue.FINISHED, catalogue.FAILED, catalogue.ALIVE)
}

_TERM = re.compile(r"[1-9][0-9]{0,9}")


def read_report(record: Received) -> Report:
    """Return the report that a record of the progress topic holds.

    Raises:
        InvalidMessage: it cannot be read.
        RunBroken: it is a slice record that is not canonical or contradicts itself or its headers; context names agency
            and run.
    """
    if record.appended_at is None:
        raise InvalidMessage(Code.TIMESTAMP_NOT_BROKERS, "The progress topic must stamp LogAppendTime")
    envelope = read_envelope(record)
    if envelope.type == catalogue.SLICED.ce_type:
        return _read_slice(record, envelope)
    spec = _BODIES.get(envelope.type)
    if spec is None:
        raise ValidationFailed(Code.EVENT_TYPE_UNKNOWN, "Not an event of the progress topic")
    body = read_body(spec, record.value)
    _refuse_beyond(body.number, body.term, *getattr(body, "partitions", ()))
    item = ItemKey(body.agency_id, UUID(body.run_id), body.kind, body.number)
    return _report(record, envelope, item, body.term, body.worker, _content(body))


def _read_slice(record: Received, envelope: Envelope) -> Report:
    value = record.value or b""
    try:
        body = progress.SliceRecord.model_validate_json(value)
    except ValidationError as problem:
        raise InvalidMessage(Code.RECORD_INVALID, "The value is no slice record") from problem
    _refuse_beyond(body.partition, body.seq)
    item = ItemKey(body.agency_id, UUID(body.run_id), "extract", body.partition)
    term = _agreed_term(envelope, item, body, value)
    counts = Counts(body.read, body.written, body.rejected, body.bytes_in, body.bytes_out)
    done = Slice(
        seq=body.seq,
        hash=bytes.fromhex(sha256_hex(value)),
        prev=bytes.fromhex(body.prev),
        cursor=body.cursor,
        counts=counts,
        rejects={reject.code: reject.count for reject in body.rejects},
    )
    return _report(record, envelope, item, term, None, done)


def _refuse_beyond(*numbers: int) -> None:
    """Refuse what no item, term or slice of ours can be numbered."""
    if max(numbers) > NUMBER_MAX:
        raise ValidationFailed(Code.SCHEMA_VIOLATION, "A number is larger than any that was given")


def _agreed_term(envelope: Envelope, item: ItemKey, body: progress.SliceRecord, value: bytes) -> int:
    named = envelope.extensions
    broken = RunBroken(Code.RECORD_INVALID, "A slice record contradicts its headers or is not canonical")
    broken.with_context(agency_id=item.agency_id, run_id=str(item.run_id))
    term = named.get("ce_fluxterm", "")
    if envelope.subject != str(item) or named.get("ce_fluxseq") != str(body.seq) or not _TERM.fullmatch(term):
        raise broken
    if not _sorted([reject.code for reject in body.rejects]) or not _sorted([one.name for one in body.outputs]):
        raise broken
    try:
        decode_exact(value)
    except ValidationFailed as problem:
        raise broken from problem
    return int(term)


def _sorted(names: list[str]) -> bool:
    """Tell whether names are in order, each once."""
    return all(left < right for left, right in pairwise(names))


def _content(body: Any) -> Started | Alive | Planned | Finished | Failed:
    match body:
        case progress.Planned():
            if sum(body.partitions) != body.objects:
                raise ValidationFailed(Code.COUNTS_MISMATCH, "The partitions of the plan do not add up")
            parts = tuple(body.partitions)
            return Planned(bytes.fromhex(body.plan_digest), body.objects, body.bytes, parts, body.transform_version)
        case progress.Finished():
            return Finished(
                body.last_seq,
                _hex(body.head),
                _hex(body.result_digest),
                body.manifest_uri,
                body.files or 0,
                body.rows or 0,
            )
        case progress.Failed():
            return Failed(body.last_seq, _hex(body.head), body.code, body.cause, body.transient)
        case progress.Started():
            return Started()
        case _:
            return Alive()


def _hex(text: str | None) -> bytes | None:
    return bytes.fromhex(text) if text is not None else None


def _report(record: Received, envelope: Envelope, item: ItemKey, term: int, worker: str | None, what: Any) -> Report:
    assert record.appended_at is not None
    return Report(
        item=item,
        term=term,
        worker=worker,
        what=what,
        position=record.position,
        heard_at=record.appended_at,
        event_type=envelope.type,
        body=record.value or b"",
    )
