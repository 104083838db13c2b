"""What an agency asks of Flux.

    async with FluxProducer("nasa", settings, token=token) as producer:
        decision = await producer.submit_and_wait({"request_id": "box-17", …})

A request is sent as the canonical JSON (RFC 8785) of what the caller gave, with nothing filled in: the same request has
the same digest whoever sends it and whatever release of this client, and sending it again is answered `repeated`. It is
judged here by the rules of the intake first, so that a mistake is told at once; Flux judges it again. A decision is
recognised by the position of the request, and waited for from before the send, so it cannot be missed.
Failure: `Unavailable` means that the request may have been written; send it again. `DecisionMissing` means the same:
it was written, and the answer did not come in time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from flux_client.events import ReceivedEvent, answers
from flux_client.keys import SigningKey
from flux_client.sending import RecordSender
from flux_client.streams import EventStream, FollowerSource
from flux_client.tokens import IssuerKey, Record, Right
from flux_common.contracts.canonical import encode
from flux_common.contracts.catalogue import COMMAND_REQUESTED, DECISIONS, REQUESTS, RUN_REQUESTED, EventSpec
from flux_common.contracts.envelope import Outgoing, headers_for
from flux_common.contracts.intake import judge, parse
from flux_common.contracts.requests import CommandRequested, RunRequested
from flux_common.contracts.types import CommandName
from flux_common.kernel.clock import Clock, SystemClock, millis
from flux_common.kernel.ids import derived_id, run_id, sha256_hex
from flux_common.kernel.positions import Position
from flux_common.settings import KafkaSettings

DECISION_SECONDS: Final = 60.0
ACCEPTED: Final = frozenset({"flux.run.accepted.v1", "flux.run.repeated.v1", "flux.run.command-accepted.v1"})
SOURCE: Final = "flux/client"


class DecisionMissing(TimeoutError):
    """The request was written at `submitted.position`, and no decision about it came in time."""

    def __init__(self, submitted: SubmittedRequest, timeout_s: float) -> None:
        super().__init__(f"no decision on {submitted.position} within {timeout_s:g} s")
        self.submitted = submitted


@dataclass(frozen=True, slots=True)
class SubmittedRequest:
    """A request or command that Kafka holds: where, its ids, and the run that it names if it is accepted."""

    position: Position
    request_id: str
    run_id: str
    event_id: str
    request_sha256: str
    command_id: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Ingest's answer to one submitted request or command; `event.body` says why."""

    submitted: SubmittedRequest
    event: ReceivedEvent

    @property
    def accepted(self) -> bool:
        """Tell whether what was asked for happens, now or since an earlier request of the same body."""
        return self.event.type in ACCEPTED

    @property
    def repeated(self) -> bool:
        """Tell whether the same body was accepted before, so that nothing new happens."""
        return self.event.type == "flux.run.repeated.v1" or getattr(self.event.body, "repeated", False) is True


class FluxProducer:
    """Sends requests and commands for one agency, by a `token` or, in development, by tokens minted with `key`.

    With `proof_key`, the key that the token names in `cnf.jkt`, each record carries a proof of its own (`flux-proof`), and
    one token serves many records. Raises ValueError where these do not go together.
    """

    def __init__(
        self, agency: str, settings: KafkaSettings, *, token: str | None = None, key: IssuerKey | None = None,
        proof_key: SigningKey | None = None, clock: Clock | None = None,
    ) -> None:  # fmt: skip
        self._agency, self._settings = agency, settings
        self._right = Right(token, key, proof_key)
        self._clock = clock or SystemClock()
        self._sender = RecordSender(settings)

    async def submit(
        self, request: RunRequested | Mapping[str, Any], *, traceparent: str | None = None
    ) -> SubmittedRequest:
        """Send a run request; return once Kafka holds it.

        Raises:
            ValidationFailed: the request breaks its contract; `violations` says where.
            PublishRefused, Unavailable: as `RecordSender.send`.
        """
        return await self._send(RUN_REQUESTED, _document(request), traceparent)

    async def command(
        self, request_id: str, command: CommandName, reason: str, *, command_id: str | None = None
    ) -> SubmittedRequest:
        """Send a command on the run of `request_id`; without `command_id` each call is a command of its own.

        Raises: as `submit`.
        """
        now = millis(self._clock.now())
        named = command_id or str(derived_id(["command", self._agency, request_id, command, reason, now]))
        document = {"request_id": request_id, "command_id": named, "command": command, "reason": reason}
        return await self._send(COMMAND_REQUESTED, document, None)

    async def submit_and_wait(
        self, request: RunRequested | Mapping[str, Any], *, timeout_s: float = DECISION_SECONDS,
        traceparent: str | None = None,
    ) -> Decision:  # fmt: skip
        """Send a run request and return ingest's decision.

        Raises:
            DecisionMissing: it was written, but no decision came within `timeout_s` seconds.
            and as `submit`.
        """
        async with self._decisions() as decisions:
            return await self._decision(decisions, await self.submit(request, traceparent=traceparent), timeout_s)

    async def command_and_wait(
        self, request_id: str, command: CommandName, reason: str, *, command_id: str | None = None,
        timeout_s: float = DECISION_SECONDS,
    ) -> Decision:  # fmt: skip
        """Send a command and return ingest's decision; what it did to the run, the completions topic says.

        Raises: as `submit_and_wait`.
        """
        async with self._decisions() as decisions:
            submitted = await self.command(request_id, command, reason, command_id=command_id)
            return await self._decision(decisions, submitted, timeout_s)

    async def close(self) -> None:
        """Disconnect; safe at any time."""
        await self._sender.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _send(self, spec: EventSpec, document: Mapping[str, Any], traceparent: str | None) -> SubmittedRequest:
        value = encode(document)
        body = judge(spec, parse(value))
        assert isinstance(body, RunRequested | CommandRequested)
        now = self._clock.now()
        event = self._event(spec, body, value, now, traceparent)
        position = await self._sender.send(event)
        return SubmittedRequest(
            position,
            body.request_id,
            str(run_id(self._agency, body.request_id)),
            event.event_id,
            sha256_hex(value),
            body.command_id if isinstance(body, CommandRequested) else None,
        )

    def _event(
        self, spec: EventSpec, body: RunRequested | CommandRequested, value: bytes, at: datetime,
        traceparent: str | None,
    ) -> Outgoing:  # fmt: skip
        event_id = str(derived_id([spec.ce_type, self._agency, body.request_id, sha256_hex(value)]))
        headers = headers_for(
            spec, event_id=event_id, source=SOURCE, at=at, subject=body.request_id, traceparent=traceparent
        )
        topic = REQUESTS.of(self._agency)
        right = self._right.headers(Record(self._agency, topic, body.request_id, value), at)
        return Outgoing(topic, body.request_id, event_id, [*headers, *right], value, self._agency)

    def _decisions(self) -> EventStream:
        return EventStream(FollowerSource(self._settings, DECISIONS.of(self._agency), "end"))

    async def _decision(self, decisions: EventStream, submitted: SubmittedRequest, timeout_s: float) -> Decision:
        deadline = self._clock.monotonic() + timeout_s
        while self._clock.monotonic() < deadline:
            event = await decisions.poll()
            if event is not None and answers(event.body, submitted.position):
                return Decision(submitted, event)
        raise DecisionMissing(submitted, timeout_s)


def _document(request: RunRequested | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the caller said, and nothing that a release of this client would fill in."""
    if isinstance(request, RunRequested):
        document: dict[str, Any] = request.model_dump(mode="json", exclude_unset=True)
        return document
    return request
