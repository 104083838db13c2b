"""What is told about decisions: to the agency, inward, and to the audit log.

A decision's fact comes before the decision, and the decision before what it admits. Whoever is not proven leaves no line
of their own in an agency's log: one fact for each batch, in the log of `_system`, counts them and seals their positions.
Past the brake, records have no events of their own (flooding.py).
Ids of events derive from the record's position: the decision is ordinal 0, what it admits 1, the fact of the unproven 2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeGuard

from flux_common.auth import Actor as Sender
from flux_common.auth import Agency, Verified
from flux_common.contracts import canonical, catalogue
from flux_common.contracts.catalogue import EventSpec
from flux_common.contracts.decisions import (
    CommandAccepted,
    CommandRejected,
    RecordDeadLettered,
    RunAccepted,
    RunRejected,
    RunRepeated,
)
from flux_common.contracts.envelope import Outgoing
from flux_common.contracts.facts import Actor
from flux_common.contracts.outgoing import Emitter
from flux_common.contracts.requests import CommandRequested, RunRequested
from flux_common.contracts.runs import CommandAdmitted, RunAdmitted
from flux_common.contracts.types import Event, RecordPosition, Violation
from flux_common.kernel.clock import rfc3339
from flux_common.kernel.ids import SYSTEM_AGENCY, decided_id, sha256_hex
from flux_common.kernel.positions import Position
from flux_ingest.domain.model import (
    Accepted,
    Asked,
    DeadLettered,
    Decision,
    Kind,
    Rejected,
    Repeated,
)
from flux_ingest.handlers.reading import Reading

EMITTER: Final = Emitter("ingest")
DECISION, ADMISSION, UNPROVEN = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Telling:
    """What all events of one batch share: whose topic it is, its id, and the moment of the decision."""

    agency: Agency
    topic_id: str
    at: datetime

    def of(self, reading: Reading, decision: Decision) -> list[Outgoing]:
        """Return the events of one decision, in the order in which they leave."""
        match decision:
            case Accepted(asked):
                return self._accepted(reading, asked)
            case Repeated(asked, first):
                return self._repeated(reading, asked, first)
            case Rejected():
                return self._rejected(reading, decision)
            case DeadLettered(_, code):
                return [self.dead_letter(reading, code)]
        return []

    # Acceptance.

    def _accepted(self, reading: Reading, asked: Asked) -> list[Outgoing]:
        match reading.body:
            case RunRequested() as body:
                told = self._decision(reading, catalogue.RUN_ACCEPTED, self._run_accepted(asked), asked.request_id)
                admitted = self._admission(reading, asked, catalogue.RUN_ADMITTED, self._run_admitted(asked, body))
            case CommandRequested() as body:
                told = self._command_accepted(reading, asked, body, repeated=False)
                admission = self._command_admitted(asked, body)
                admitted = self._admission(reading, asked, catalogue.COMMAND_ADMITTED, admission)
            case None:
                raise AssertionError("an acceptance without a body")
        fact = self._fact(reading, told, _type(asked.kind, "accepted"), refs=_refs(asked), receipt=True)
        return [fact, told, admitted]

    def _run_accepted(self, asked: Asked) -> RunAccepted:
        return RunAccepted(
            agency_id=asked.agency_id,
            request_id=asked.request_id,
            run_id=str(asked.run_id),
            request_sha256=asked.sha256,
            position=place(asked.position),
        )

    def _run_admitted(self, asked: Asked, body: RunRequested) -> RunAdmitted:
        return RunAdmitted(
            agency_id=asked.agency_id,
            request_id=asked.request_id,
            run_id=str(asked.run_id),
            request=body,
            request_sha256=asked.sha256,
            run_window=self.agency.run_window,
            agency_window=self.agency.agency_window,
            admitted_at=rfc3339(self.at),
        )

    def _command_accepted(self, reading: Reading, asked: Asked, body: CommandRequested, *, repeated: bool) -> Outgoing:
        accepted = CommandAccepted(
            agency_id=asked.agency_id,
            request_id=asked.request_id,
            command_id=body.command_id,
            command=body.command,
            run_id=str(asked.run_id),
            repeated=repeated,
            position=place(asked.position),
        )
        return self._decision(reading, catalogue.COMMAND_ACCEPTED, accepted, asked.request_id)

    def _command_admitted(self, asked: Asked, body: CommandRequested) -> CommandAdmitted:
        return CommandAdmitted(
            agency_id=asked.agency_id,
            request_id=asked.request_id,
            run_id=str(asked.run_id),
            command_id=body.command_id,
            command=body.command,
            reason=body.reason,
        )

    def _admission(self, reading: Reading, asked: Asked, spec: EventSpec, body: Event) -> Outgoing:
        return EMITTER.event(
            catalogue.RUNS,
            spec,
            body,
            agency_id=asked.agency_id,
            key=str(asked.run_id),
            event_id=decided_id(EMITTER.service, self.topic_id, asked.position, ADMISSION),
            at=self.at,
            traceparent=reading.traceparent,
        )

    # Repetition and refusal.

    def _repeated(self, reading: Reading, asked: Asked, first: Position) -> list[Outgoing]:
        if isinstance(reading.body, CommandRequested):
            told = self._command_accepted(reading, asked, reading.body, repeated=True)
        else:
            accepted = self._run_accepted(asked).model_dump()
            repeated = RunRepeated(**accepted, first=place(first))
            told = self._decision(reading, catalogue.RUN_REPEATED, repeated, asked.request_id)
        return [self._fact(reading, told, _type(asked.kind, "repeated"), refs=_refs(asked)), told]

    def _rejected(self, reading: Reading, rejected: Rejected) -> list[Outgoing]:
        said: dict[str, Any] = {
            "agency_id": self.agency.agency_id,
            "request_id": rejected.request_id,
            "code": rejected.code.value,
            "message": rejected.code.meaning,
            "violations": [Violation(pointer=pointer, keyword=keyword) for pointer, keyword in rejected.violations],
            "position": place(rejected.position),
        }
        if rejected.kind is Kind.RUN:
            told = self._decision(reading, catalogue.RUN_REJECTED, RunRejected(**said), rejected.request_id)
        else:
            body = CommandRejected(**said, command_id=rejected.command_id)
            told = self._decision(reading, catalogue.COMMAND_REJECTED, body, rejected.request_id)
        if not rejected.proven:
            return [told]
        refs = _words(request_id=rejected.request_id, command_id=rejected.command_id)
        refs["request_sha256"] = sha256_hex(reading.record.value or b"")
        type_ = _type(rejected.kind, "rejected")
        return [self._fact(reading, told, type_, refs=refs, outcome="refused", code=rejected.code.value), told]

    def dead_letter(self, reading: Reading, code: str) -> Outgoing:
        """Return the event that says to the agency that a record was put aside."""
        record = reading.record
        letter = RecordDeadLettered(
            agency_id=self.agency.agency_id,
            position=place(record.position),
            sha256=record.sha256,
            code=str(code),
        )
        return EMITTER.event(
            catalogue.DEAD_LETTERS,
            catalogue.RECORD_DEAD_LETTERED,
            letter,
            agency_id=self.agency.agency_id,
            key=str(record.position),
            event_id=decided_id(EMITTER.service, self.topic_id, record.position, DECISION),
            at=self.at,
            traceparent=reading.traceparent,
        )

    # The audit log.

    def of_the_unproven(self, decisions: Iterable[Decision]) -> list[Outgoing]:
        """Return the one fact about all records of a batch whose sender is not proven; nothing if there are none."""
        found = [one for one in decisions if _is_unproven(one)]
        if not found:
            return []
        places = [[one.position.tp.kafka_partition, one.position.offset, one.code.value] for one in found]
        codes = Counter(one.code for one in found)
        first = found[0].position
        fact = EMITTER.fact(
            SYSTEM_AGENCY,
            "intake.refused",
            at=self.at,
            event_id=decided_id(EMITTER.service, self.topic_id, first, UNPROVEN),
            subject=canonical.encode(places),
            outcome="refused",
            code=found[0].code.value if len(codes) == 1 else None,
            position=first,
            refs={"count": len(found), "last_offset": found[-1].position.offset}
            | {code.value.lower(): number for code, number in sorted(codes.items())},
        )
        return [fact]

    def _decision(self, reading: Reading, spec: EventSpec, body: Event, key: str | None) -> Outgoing:
        return EMITTER.event(
            catalogue.DECISIONS,
            spec,
            body,
            agency_id=self.agency.agency_id,
            key=key,
            event_id=decided_id(EMITTER.service, self.topic_id, reading.record.position, DECISION),
            at=self.at,
            traceparent=reading.traceparent,
        )

    def _fact(self, reading: Reading, told: Outgoing, type_: str, *, receipt: bool = False, **more: Any) -> Outgoing:
        return EMITTER.attest(
            told,
            type_,
            at=self.at,
            actor=_actor(reading.sender),
            position=reading.record.position,
            traceparent=reading.traceparent,
            receipt=receipt,
            **more,
        )


def _is_unproven(decision: Decision) -> TypeGuard[Rejected | DeadLettered]:
    return isinstance(decision, DeadLettered) or (isinstance(decision, Rejected) and not decision.proven)


def _type(kind: Kind, what: str) -> str:
    return f"{'request' if kind is Kind.RUN else 'command'}.{what}"


def place(position: Position) -> RecordPosition:
    """Return a position as events name it."""
    tp = position.tp
    return RecordPosition(topic=tp.topic, kafka_partition=tp.kafka_partition, offset=position.offset)


def _actor(sender: Sender | None) -> Actor | None:
    """Return a proven identity as a fact names it; a token that was refused before its binding was judged has none."""
    if sender is None:
        return None
    return Actor(
        iss=sender.iss,
        sub=sender.sub,
        role=sender.role.value,
        kid=sender.kid,
        jti_sha256=sender.jti_sha256,
        binding=sender.binding.value if isinstance(sender, Verified) else "none",
    )


def _refs(asked: Asked) -> dict[str, Any]:
    ids = _words(request_id=asked.request_id, command_id=asked.command_id)
    return {"run_id": str(asked.run_id), "request_sha256": asked.sha256} | ids


def _words(**named: str | None) -> dict[str, Any]:
    """Return the ids that may stand in a fact: its words begin with a letter or a digit, ids need not."""
    return {name: text for name, text in named.items() if text is not None and text[0].isalnum()}
