"""What a producer sends is what Flux reads: position, key, value, headers and token, on a real Kafka."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flux_client.producer import DecisionMissing, FluxProducer, SubmittedRequest
from flux_client.tokens import IssuerKey
from flux_common.auth import Binding, authorization_of, context_of, load_trust, verify
from flux_common.contracts import catalogue
from flux_common.contracts.decisions import CommandAccepted, RunRejected
from flux_common.contracts.envelope import read_envelope
from flux_common.contracts.intake import read_request
from flux_common.contracts.requests import CommandRequested, Destination, RunRequested, Source
from flux_common.contracts.types import RecordPosition
from flux_common.kafka.follow import TopicFollower
from flux_common.kernel.clock import SystemClock
from flux_common.kernel.errors import Unavailable, ValidationFailed
from flux_common.kernel.ids import run_id, sha256_hex
from flux_common.kernel.positions import Received
from flux_common.settings import KafkaSettings

REQUEST: dict[str, Any] = {
    "request_id": "box-17",
    "source": {"uri": "s3://scans/box-17/"},
    "content_type": "images",
    "use_case": "ai-training",
    "destination": {"uri": "s3://datasets/box-17/"},
}
TOPIC = catalogue.REQUESTS.of("nasa")


async def written(settings: KafkaSettings) -> list[Received]:
    """Return every record of the requests topic."""
    follower = TopicFollower(settings, [TOPIC])
    await follower.open()
    try:
        return [record async for batch in follower.to_end() for record in batch]
    finally:
        await follower.close()


async def arrived(settings: KafkaSettings, count: int) -> list[Received]:
    """Return the first `count` records of the requests topic, once they are there."""
    follower = TopicFollower(settings, [TOPIC])
    await follower.open()
    found: list[Received] = []
    try:
        async for batch in follower.follow():
            found += batch
            if len(found) >= count:
                return found
    finally:
        await follower.close()
    raise AssertionError("unreachable")


def place(submitted: SubmittedRequest) -> RecordPosition:
    """Return a submitted request's position as events say it."""
    at = submitted.position
    return RecordPosition(topic=at.tp.topic, kafka_partition=at.tp.kafka_partition, offset=at.offset)


async def test_a_request_stands_where_it_says_with_a_token_that_flux_accepts(
    settings: KafkaSettings, issuer: IssuerKey, registry: Path
) -> None:
    """The record at the returned position has the request's key and bytes, and its token is bound to them."""
    async with FluxProducer("nasa", settings, key=issuer) as producer:
        submitted = await producer.submit(REQUEST, traceparent="00-" + "ab" * 16 + "-" + "cd" * 8 + "-01")
    (record,) = await written(settings)
    trust = load_trust(registry, SystemClock().now())
    verified = verify(
        authorization_of(record), context_of(record, "nasa"), trust.registry, trust.keys, SystemClock().now()
    )
    envelope = read_envelope(record)

    assert record.position == submitted.position
    assert (record.key, sha256_hex(record.value or b"")) == (b"box-17", submitted.request_sha256)
    assert (envelope.id, envelope.type, envelope.subject) == (submitted.event_id, "flux.run.requested.v1", "box-17")
    assert envelope.traceparent is not None
    assert read_request(envelope.type, record.value) == RunRequested.model_validate(REQUEST)
    assert (verified.binding, verified.role, submitted.run_id) == (
        Binding.CLAIM,
        "operator",
        str(run_id("nasa", "box-17")),
    )


async def test_model_and_document_in_any_order_are_the_same_bytes(settings: KafkaSettings, issuer: IssuerKey) -> None:
    """Nothing is filled in, so the digest is the caller's: the same request again is `repeated`, never a conflict."""
    model = RunRequested(
        request_id="box-17",
        source=Source(uri="s3://scans/box-17/"),
        content_type="images",
        use_case="ai-training",
        destination=Destination(uri="s3://datasets/box-17/"),
    )
    shuffled = dict(reversed(REQUEST.items()))
    async with FluxProducer("nasa", settings, key=issuer) as producer:
        digests = {(await producer.submit(each)).request_sha256 for each in (REQUEST, shuffled, model)}

    assert len(digests) == 1
    assert {record.value for record in await written(settings)} == {
        json.dumps(REQUEST, sort_keys=True, separators=(",", ":")).encode()
    }


async def test_a_request_that_breaks_its_contract_is_not_sent(settings: KafkaSettings, issuer: IssuerKey) -> None:
    """The places are named, and the topic stays empty."""
    async with FluxProducer("nasa", settings, key=issuer) as producer:
        with pytest.raises(ValidationFailed) as refused:
            await producer.submit(REQUEST | {"content_type": "stone"})

    assert refused.value.violations == (("/content_type", "enum"),)
    assert await written(settings) == []


async def test_a_decision_is_the_one_on_this_position(settings: KafkaSettings, issuer: IssuerKey, pen: Any) -> None:
    """Another record's decision, with the same key, is not taken for it."""

    async def ingest() -> None:
        (found,) = await arrived(settings, 1)
        at = found.position
        for offset in (at.offset + 1, at.offset):
            body = RunRejected(
                agency_id="nasa",
                request_id="box-17",
                code="SOURCE_NOT_ALLOWED",
                message=f"offset {offset}",
                position=RecordPosition(topic=TOPIC, kafka_partition=at.tp.kafka_partition, offset=offset),
            )
            await pen.write(catalogue.DECISIONS, catalogue.RUN_REJECTED, body, "box-17", uuid4())

    async with FluxProducer("nasa", settings, key=issuer) as producer, asyncio.TaskGroup() as tasks:
        tasks.create_task(ingest())
        decision = await producer.submit_and_wait(REQUEST)

    assert (decision.accepted, decision.repeated) == (False, False)
    assert decision.event.document()["message"] == f"offset {decision.submitted.position.offset}"


async def test_a_command_has_an_id_of_its_own_unless_it_is_given_one(
    settings: KafkaSettings, issuer: IssuerKey, pen: Any
) -> None:
    """Two calls are two commands; one id is one command, whose decision comes back."""

    async def ingest() -> None:
        found = await arrived(settings, 3)
        record = next(one for one in found if b'"mine"' in (one.value or b""))
        submitted = SubmittedRequest(record.position, "box-17", str(run_id("nasa", "box-17")), "", "")
        body = CommandAccepted(
            agency_id="nasa",
            request_id="box-17",
            command_id="mine",
            command="cancel",
            run_id=submitted.run_id,
            repeated=True,
            position=place(submitted),
        )
        await pen.write(catalogue.DECISIONS, catalogue.COMMAND_ACCEPTED, body, "box-17", uuid4())

    async with FluxProducer("nasa", settings, key=issuer) as producer, asyncio.TaskGroup() as tasks:
        first = await producer.command("box-17", "pause", "a reason")
        await asyncio.sleep(0.002)
        second = await producer.command("box-17", "pause", "a reason")
        tasks.create_task(ingest())
        decision = await producer.command_and_wait("box-17", "cancel", "enough", command_id="mine")

    assert first.command_id != second.command_id
    assert (decision.accepted, decision.repeated, decision.submitted.command_id) == (True, True, "mine")
    bodies = [read_request("flux.run.command-requested.v1", record.value) for record in await written(settings)]
    assert all(isinstance(body, CommandRequested) and body.request_id == "box-17" for body in bodies)


async def test_without_a_decision_the_position_is_not_lost(settings: KafkaSettings, issuer: IssuerKey) -> None:
    """The error says where the request stands, so that it can be asked about later."""
    async with FluxProducer("nasa", settings, key=issuer) as producer:
        with pytest.raises(DecisionMissing) as missing:
            await producer.submit_and_wait(REQUEST, timeout_s=0.5)

    assert [record.position for record in await written(settings)] == [missing.value.submitted.position]


async def test_a_topic_that_is_not_there_is_an_error_with_a_code(settings: KafkaSettings, issuer: IssuerKey) -> None:
    """An agency that is not registered has no topics, and the producer can still be used for nothing else."""
    async with FluxProducer("esa", settings, key=issuer) as producer:
        with pytest.raises(Unavailable) as refused:
            await producer.submit(REQUEST)

    assert refused.value.code in ("TOPIC_MISSING", "BROKER_UNAVAILABLE")


async def test_an_unreachable_broker_is_an_outage(issuer: IssuerKey) -> None:
    """Nothing hangs, and nothing is left open."""
    async with FluxProducer("nasa", KafkaSettings(bootstrap="127.0.0.1:1"), key=issuer) as producer:
        with pytest.raises(Unavailable) as refused:
            await producer.submit(REQUEST)

    assert refused.value.code == "BROKER_UNAVAILABLE"


def test_a_producer_has_one_right_to_ask(issuer: IssuerKey) -> None:
    """A token or a key, not both and not neither."""
    settings = KafkaSettings(bootstrap="127.0.0.1:1")

    with pytest.raises(ValueError, match="token or a key"):
        FluxProducer("nasa", settings)
    with pytest.raises(ValueError, match="token or a key"):
        FluxProducer("nasa", settings, token="a.b.c", key=issuer)
