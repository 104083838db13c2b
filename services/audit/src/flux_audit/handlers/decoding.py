"""Reading facts: bytes in; a fact, or why there is none, out. Nothing here raises: what cannot be read is sealed as that.

The record's key says whose log it belongs to. Relays write key and Kafka partition from the deciding service's own
value, and only service principals write this topic; so a fact that was damaged leaves its trace in the log of the
agency whose record would otherwise have a hole that nobody sees, and in `_system` only where the key names nobody. A
body that names another agency than the key proves nothing and is unreadable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

from flux_audit.domain.entry import Fact
from flux_common.contracts import catalogue
from flux_common.contracts.envelope import Envelope, read_body, read_envelope
from flux_common.contracts.facts import AuditFact
from flux_common.contracts.types import AGENCY_PATTERN
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import FluxError, ValidationFailed
from flux_common.kernel.ids import SYSTEM_AGENCY, sha256_hex
from flux_common.kernel.positions import Received

_AGENCY = re.compile(AGENCY_PATTERN)


@dataclass(frozen=True, slots=True)
class FactRead:
    """A record of the facts topic: whose log it goes to, its digest, and its fact, or the code of why it has none."""

    record: Received
    agency_id: str
    sha256: str
    fact: Fact | None
    code: str | None = None


def read_fact(record: Received) -> FactRead:
    """Return what a record says."""
    agency_id = log_of(record.key)
    try:
        envelope = read_envelope(record)
        if envelope.type != catalogue.AUDIT_FACT.ce_type:
            raise ValidationFailed(Code.EVENT_TYPE_UNKNOWN, "Not an event of the facts topic")
        fact = _fact(envelope, read_body(catalogue.AUDIT_FACT, record.value))
        if fact.agency_id != agency_id:
            raise ValidationFailed(Code.KEY_MISMATCH, "The fact is of another agency than its key")
    except ValidationFailed as problem:
        return unreadable_fact(record, problem)
    return FactRead(record, agency_id, sha256_hex(record.value or b""), fact)


def unreadable_fact(record: Received, problem: FluxError) -> FactRead:
    """Return a record that is to be sealed as unreadable, because of `problem`."""
    return FactRead(record, log_of(record.key), record.sha256, None, problem.code)


def log_of(key: bytes | None) -> str:
    """Return the agency whose log a record with this key goes to."""
    name = (key or b"").decode("ascii", errors="replace")
    return name if _AGENCY.fullmatch(name) else SYSTEM_AGENCY


def _fact(envelope: Envelope, body: AuditFact) -> Fact:
    fact = Fact(
        fact_id=_uuid(envelope.id),
        agency_id=body.agency_id,
        ts=body.ts,
        type=body.type,
        outcome=body.outcome,
        src=body.src.model_dump(exclude_none=True),
        subject_sha256=body.subject_sha256,
        refs=dict(body.refs),
        code=body.code,
        actor=body.actor.model_dump() if body.actor is not None else None,
        receipt=body.receipt,
    )
    if fact.receipt:
        _uuid(fact.event_id)
    return fact


def _uuid(text: str) -> str:
    """Return `text`, which must be a UUID in its one canonical form."""
    try:
        if str(UUID(text)) == text:
            return text
    except ValueError:
        pass
    raise ValidationFailed(Code.HEADER_INVALID, "An event id is not a UUID in lower case")
