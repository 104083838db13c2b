"""The work of `submit` and of the commands on runs: send, wait for what was asked to be waited for, say how it ended.

Readers stand on their topics before anything is sent, so no answer is missed. What is returned is the whole story as one
object, also where Flux refused or the run failed; the exit status says which.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from flux_client.cli.exits import Ended, Exit
from flux_client.cli.output import say
from flux_client.cli.progress import Tell, telling
from flux_client.events import ReceivedEvent
from flux_client.keys import SigningKey
from flux_client.producer import DECISION_SECONDS, Decision, DecisionMissing, FluxProducer, SubmittedRequest
from flux_client.reader import FluxReader, reading
from flux_client.streams import EventStream
from flux_client.subscriber import FluxSubscriber
from flux_client.tokens import IssuerKey
from flux_client.watching import Progress, is_end, last_end, progress, progress_at_end
from flux_common.contracts.types import CommandName
from flux_common.kernel.codes import meaning_of
from flux_common.kernel.errors import Unavailable
from flux_common.settings import KafkaSettings, PostgresSettings

Story = dict[str, Any]
ENDS: Final = {
    "flux.run.completed.v1": Exit.OK,
    "flux.run.failed.v1": Exit.RUN_FAILED,
    "flux.run.cancelled.v1": Exit.RUN_CANCELLED,
    "COMPLETED": Exit.OK,
    "FAILED": Exit.RUN_FAILED,
    "CANCELLED": Exit.RUN_CANCELLED,
}
NEXT_STEPS: Final = {
    "REQUEST_CONFLICT": "choose another request_id; this one belongs to an accepted request for ever",
    "COMMAND_CONFLICT": "choose another --command-id",
    "RUN_STATE": "`flux-etl runs get` shows the run's state",
    "RUN_UNKNOWN": "see `flux-etl runs ls`",
    "TOKEN_EXPIRED": "get a new token and ask again",
    "BINDING_REQUIRED": "use a token bound to the request: request_hash, or cnf.jkt with --proof-key",
    "KEY_RETIRED": "the issuer's key is retired: get a new token and ask again",
    "KEY_UNKNOWN": "a new key is known within a refresh interval: ask again, or get a new token",
    "ROLE_FORBIDDEN": "use a token whose role may ask for this",
}
COMMAND_ANSWERS: Final = ("flux.run.command-applied.v1", "flux.run.command-refused.v1")


@dataclass(frozen=True, slots=True)
class Means:
    """With what is asked: for which agency, where, by what right, and what may be read meanwhile."""

    agency: str
    kafka: KafkaSettings
    token: str | None = None
    key: IssuerKey | None = None
    proof_key: SigningKey | None = None
    reader: PostgresSettings | None = None

    def producer(self) -> FluxProducer:
        """Return a producer; raises Ended where token and keys do not go together."""
        try:
            return FluxProducer(self.agency, self.kafka, token=self.token, key=self.key, proof_key=self.proof_key)
        except ValueError as wrong:
            raise Ended(
                Exit.USAGE, str(wrong), "--token-file and --proof-key belong together; see docs/trust.md"
            ) from None

    def completions(self) -> EventStream:
        """Return the completions from now on."""
        return FluxSubscriber(self.agency, self.kafka).completions()


async def submit(means: Means, document: Mapping[str, Any]) -> Story:
    """Send a request; return where it stands."""
    async with means.producer() as producer:
        return _sent(await producer.submit(document))


async def submit_and_decide(means: Means, document: Mapping[str, Any], timeout_s: float | None) -> tuple[Story, int]:
    """Send a request; return the decision."""
    async with means.producer() as producer:
        decision = await producer.submit_and_wait(document, timeout_s=timeout_s or DECISION_SECONDS)
    return _decided(decision), Exit.OK if decision.accepted else Exit.REFUSED


async def submit_and_end(means: Means, document: Mapping[str, Any], timeout_s: float | None) -> tuple[Story, int]:
    """Send a request; return the decision and the terminal event, telling progress meanwhile."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    async with AsyncExitStack() as stack:
        completions = await stack.enter_async_context(means.completions())
        producer = await stack.enter_async_context(means.producer())
        tell = stack.enter_context(telling(str(document.get("request_id", ""))))
        tell(Progress("SUBMITTED"))
        decision = await producer.submit_and_wait(document, timeout_s=timeout_s or DECISION_SECONDS)
        story = _decided(decision)
        if not decision.accepted:
            return story, Exit.REFUSED
        tell(Progress("REPEATED" if decision.repeated else "ACCEPTED"))
        end = await _ended_before(means, decision) or await _end(means, completions, decision, deadline, tell)
        tell(progress_at_end(end))
        return {**story, "outcome": end.document()}, ENDS[end.type]


async def command(means: Means, request_id: str, verb: CommandName, reason: str, command_id: str | None) -> Story:
    """Send a command; return where it stands."""
    async with means.producer() as producer:
        return _sent(await producer.command(request_id, verb, reason, command_id=command_id))


async def command_and_answer(
    means: Means, request_id: str, verb: CommandName, reason: str, command_id: str | None, timeout_s: float
) -> tuple[Story, int]:
    """Send a command; return the decision and what the command did to the run."""
    deadline = time.monotonic() + timeout_s
    async with means.completions() as completions, means.producer() as producer:
        decision = await producer.command_and_wait(request_id, verb, reason, command_id=command_id, timeout_s=timeout_s)
        story = _decided(decision)
        if not decision.accepted or decision.repeated:
            return story, Exit.OK if decision.accepted else Exit.REFUSED
        while time.monotonic() < deadline:
            event = await completions.poll()
            if event is not None and _answers(event, decision.submitted.command_id):
                status = Exit.OK if event.type == COMMAND_ANSWERS[0] else Exit.REFUSED
                return {**story, "outcome": event.document()}, status
    raise Ended(
        Exit.TIMED_OUT,
        f"the command was accepted, and not applied within {timeout_s:g} s",
        "see `flux-etl runs get` and `flux-etl lag`; the command stays in force",
    )


async def watch_rows(settings: PostgresSettings, agency: str, run: str) -> tuple[Story, int]:
    """Tell a run's progress from PostgreSQL until it has ended; return the run."""
    async with reading(settings, agency) as reader:
        run_id = await found(reader, run)
        with telling(run) as tell:
            async for now in progress(reader, run_id):
                tell(now)
        row = await reader.run(run_id)
    assert row is not None
    return row, ENDS[row["state"]]


async def watch_topics(means: Means, run_id: str) -> tuple[Story, int]:
    """Wait for a run's end as the completions topic tells it; return the terminal event."""
    async with means.completions() as completions:
        with telling(run_id) as tell:
            end = await last_end(means.agency, means.kafka, run_id)
            if end is None:
                tell(Progress("WAITING"))
                end = await _next_end(completions, run_id, None)
            tell(progress_at_end(end))
    return end.document(), ENDS[end.type]


async def found(reader: FluxReader, run: str) -> UUID:
    """Return the id of the run that `run` names."""
    row = await reader.find(run)
    if row is None:
        raise Ended(Exit.NOT_FOUND, f"this agency has no run {run}", "see `flux-etl runs ls`")
    run_id: UUID = row["run_id"]
    return run_id


def refusal_of(story: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a refusal says and where, and what to do about it."""
    refused = story.get("outcome") or story["decision"]
    code, said = str(refused["code"]), refused.get("message")
    lines = [f"refused, {code}: {meaning_of(code)}", *([f"  {said}"] if said else [])]
    lines += [f"  {one['pointer'] or '/'}: {one['keyword']}" for one in refused.get("violations", ())]
    return "\n".join(lines), NEXT_STEPS.get(code, "correct it and ask again; a refusal binds nothing")


def unanswered(missing: DecisionMissing) -> Ended:
    """Return how a command ends whose request nobody decided in time."""
    return Ended(
        Exit.TIMED_OUT,
        f"the request stands at {missing.submitted.position}, and there is no decision yet",
        "is ingest running? `flux-etl lag` shows; sending the same request again is harmless",
    )


async def _ended_before(means: Means, decision: Decision) -> ReceivedEvent | None:
    """Return the end of a run that was accepted earlier, if its present attempt is over."""
    if not decision.repeated:
        return None
    run_id = decision.submitted.run_id
    if means.reader is not None:
        async with reading(means.reader, means.agency) as reader:
            row = await reader.summary(UUID(run_id))
        if row is not None and row["state"] not in ENDS:
            return None
    return await last_end(means.agency, means.kafka, run_id)


async def _end(
    means: Means, completions: EventStream, decision: Decision, deadline: float | None, tell: Tell
) -> ReceivedEvent:
    run_id = decision.submitted.run_id
    telling_rows = asyncio.create_task(_tell_rows(means, run_id, tell))
    try:
        return await _next_end(completions, run_id, deadline)
    finally:
        telling_rows.cancel()
        with suppress(asyncio.CancelledError):
            await telling_rows


async def _next_end(completions: EventStream, run_id: str, deadline: float | None) -> ReceivedEvent:
    while deadline is None or time.monotonic() < deadline:
        event = await completions.poll()
        if event is not None and is_end(event, run_id):
            return event
    raise Ended(Exit.TIMED_OUT, f"run {run_id} goes on", f"`flux-etl runs watch {run_id}` waits for its end")


async def _tell_rows(means: Means, run_id: str, tell: Tell) -> None:
    """Tell progress from PostgreSQL, where it may be read; that it cannot be does not end the wait."""
    if means.reader is None:
        return
    try:
        async with reading(means.reader, means.agency) as reader:
            async for now in progress(reader, UUID(run_id), expected=True):
                tell(now)
    except Unavailable as problem:
        say(f"progress cannot be read: {problem.message}")


def _answers(event: ReceivedEvent, command_id: str | None) -> bool:
    return event.type in COMMAND_ANSWERS and getattr(event.body, "command_id", None) == command_id


def _sent(submitted: SubmittedRequest) -> Story:
    at = submitted.position
    story: Story = {"request_id": submitted.request_id, "run_id": submitted.run_id}
    if submitted.command_id is not None:
        story["command_id"] = submitted.command_id
    return story | {
        "request_sha256": submitted.request_sha256,
        "position": {"topic": at.tp.topic, "kafka_partition": at.tp.kafka_partition, "offset": at.offset},
    }


def _decided(decision: Decision) -> Story:
    return {**_sent(decision.submitted), "decision": decision.event.document()}
