"""Reading records of a requests topic: hostile bytes in, findings out, never an exception.

The order is that of docs/trust.md, and the first step that fails gives the code. A record whose kind cannot be told (no
CloudEvent of a type that the topic carries) cannot be answered in a decision's form, so it is a dead letter; every other
one gets its decision. An id that the body names is told back even where its sender is not proven: the topic is the
agency's own, and the producer has to find its request again. The body itself is never told back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from flux_common.auth import (
    LEEWAY_S,
    Actor,
    Ask,
    TokenRefused,
    Trust,
    Verified,
    VerifiedTokens,
    authorization_of,
    authorize,
    context_of,
    verify,
)
from flux_common.contracts import catalogue
from flux_common.contracts.envelope import read_envelope
from flux_common.contracts.intake import STANDARD, IntakeLimits, parse, read_request, readable_request_id
from flux_common.contracts.requests import CommandRequested, RunRequested
from flux_common.kernel.clock import from_millis
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import ValidationFailed
from flux_common.kernel.ids import sha256_hex
from flux_common.kernel.positions import Received
from flux_common.observability.tracing import TRACEPARENT, carried_traceparent
from flux_ingest.domain.model import Asked, DeadLettered, Finding, Kind, Rejected, SingleUse
from flux_ingest.domain.terms import Wish, objection

SPECVERSION: Final = b"1.0"
Body = RunRequested | CommandRequested
OnUnknownKey = Callable[[str], None]

_KINDS: Final = {
    catalogue.RUN_REQUESTED.ce_type: Kind.RUN,
    catalogue.COMMAND_REQUESTED.ce_type: Kind.COMMAND,
}
_TYPES: Final = {kind: ce_type for ce_type, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Reading:
    """A record, what was found, and what an answer needs: the body where it may be used, the sender where proven."""

    record: Received
    finding: Finding
    traceparent: str | None = None
    body: Body | None = None
    sender: Actor | None = None


class Reader:
    """Reads records of one agency's topic, by one state of the registry and its keys, at one moment."""

    def __init__(
        self,
        agency_id: str,
        trust: Trust,
        memory: VerifiedTokens,
        now: datetime,
        limits: IntakeLimits = STANDARD,
        on_unknown_key: OnUnknownKey = lambda _iss: None,
    ) -> None:
        self._on_unknown_key = on_unknown_key
        self._agency_id = agency_id
        self._trust = trust
        self._memory = memory
        self._now = now
        self._limits = limits

    def read(self, record: Received) -> Reading:
        """Return what a record is."""
        try:
            kind = kind_of(record, self._limits)
        except ValidationFailed as problem:
            return Reading(record, DeadLettered(record.position, Code[problem.code]))
        sender: Actor | None = None
        try:
            verified = sender = self._prove(record, kind)
            body = self._read_body(record, kind, verified)
        except TokenRefused as refused:
            if refused.reason is Code.KEY_UNKNOWN:
                self._tell_unknown_key(refused.context["iss"])
            return self._rejected(record, kind, refused.reason, refused.actor or sender)
        except ValidationFailed as problem:
            return self._rejected(record, kind, Code[problem.code], sender, problem.violations)
        code = objection(self._wish(record, body), self._agency_id)
        if code is not None:
            return self._rejected(record, kind, code, sender)
        return Reading(record, _asked(record, kind, body, verified), _trace(record), body, verified)

    def _tell_unknown_key(self, iss: str) -> None:
        """Tell of the topic's own issuers alone: how often an issuer's keys are looked for is its agencies' to use up."""
        agency = self._trust.registry.agency(self._agency_id)
        if agency is not None and iss in agency.issuers:
            self._on_unknown_key(iss)

    def _prove(self, record: Received, kind: Kind) -> Verified:
        context = context_of(record, self._agency_id, is_command=kind is Kind.COMMAND)
        token, trust = authorization_of(record), self._trust
        return verify(token, context, trust.registry, trust.keys, self._now, self._memory)

    def _read_body(self, record: Received, kind: Kind, verified: Verified) -> Body:
        """Read the body for whoever may ask for it; which command is asked for, only the body tells."""
        if kind is Kind.RUN:
            authorize(verified, Ask.REQUEST, self._trust.registry)
        body = read_request(_TYPES[kind], record.value, self._limits)
        if isinstance(body, CommandRequested):
            authorize(verified, Ask(body.command), self._trust.registry)
        return body

    def _wish(self, record: Received, body: Body) -> Wish:
        if isinstance(body, CommandRequested):
            return Wish(body.agency, record.key, body.request_id)
        agency = self._trust.registry.agencies[self._agency_id]
        return Wish(
            agency_named=body.agency,
            record_key=record.key,
            request_id=body.request_id,
            use_case=body.use_case,
            source_allowed=agency.may_read(body.source.uri),
            destination_allowed=agency.may_write(body.destination.uri),
        )

    def _rejected(
        self,
        record: Received,
        kind: Kind,
        code: Code,
        sender: Actor | None,
        violations: tuple[tuple[str, str], ...] = (),
    ) -> Reading:
        request_id, command_id = self._named(record, kind)
        finding = Rejected(record.position, kind, code, sender is not None, request_id, command_id, violations)
        return Reading(record, finding, _trace(record), sender=sender)

    def _named(self, record: Received, kind: Kind) -> tuple[str | None, str | None]:
        """Return the ids that a refused body names, as far as it can be read at all."""
        try:
            document: Any = parse(record.value, self._limits)
        except ValidationFailed:
            return None, None
        command_id = None
        if kind is Kind.COMMAND and isinstance(document, dict):
            command_id = readable_request_id({"request_id": document.get("command_id")})  # one grammar for both ids
        return readable_request_id(document), command_id


def kind_of(record: Received, limits: IntakeLimits = STANDARD) -> Kind:
    """Return what a record asks for, by its headers.

    Raises:
        ValidationFailed: `HEADER_INVALID`, `NOT_UTF8` or `EVENT_TYPE_UNKNOWN`: it is no CloudEvent that belongs here.
    """
    if len(record.headers) > limits.headers_max:  # looking headers up takes time that grows with their number
        raise ValidationFailed(Code.HEADER_INVALID, f"More than {limits.headers_max} headers")
    # A trace context that is not well-formed is none, and no reason to refuse.
    attributes = tuple(header for header in record.headers if header[0] != TRACEPARENT)
    envelope = read_envelope(
        replace(record, headers=attributes),
        headers_max=limits.headers_max,
        header_bytes_max=limits.header_bytes_max,
    )
    if record.count("ce_specversion") and record.header("ce_specversion") != SPECVERSION:
        raise ValidationFailed(Code.HEADER_INVALID, "Not CloudEvents 1.0")
    if envelope.type not in _KINDS:
        raise ValidationFailed(Code.EVENT_TYPE_UNKNOWN, "Not an event of a requests topic")
    return _KINDS[envelope.type]


def _asked(record: Received, kind: Kind, body: Body, verified: Verified) -> Asked:
    return Asked(
        position=record.position,
        kind=kind,
        agency_id=verified.agency_id,
        request_id=body.request_id,
        command_id=body.command_id if isinstance(body, CommandRequested) else None,
        sha256=sha256_hex(record.value or b""),
        single_use=_single_use(verified),
    )


def _single_use(verified: Verified) -> SingleUse | None:
    """Return what may not be used again, kept for as long as a record with it could still be read and be accepted."""
    if verified.single_use is None:
        return None
    kept_ms = (verified.exp + LEEWAY_S) * 1000 + catalogue.REQUESTS.retention_ms
    return SingleUse(verified.single_use, from_millis(kept_ms))


def _trace(record: Received) -> str | None:
    return carried_traceparent(record.headers)
