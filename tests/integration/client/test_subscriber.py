"""A subscriber hears every committed event once, keeps its place in a group, and gives no attested event unproven."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaProducer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flux_audit.adapters.signer import TreeHeadSigner
from flux_audit.domain.entry import Fact, entry_bytes
from flux_audit.domain.merkle import Frontier, append, leaf_hash
from flux_audit.domain.tree_head import TreeHead, log_origin
from flux_client.events import ReceivedEvent
from flux_client.receipts import ReceiptMissing, ReceiptReader
from flux_client.subscriber import FluxSubscriber
from flux_client.verifier import Failure, Trust, VerificationFailed
from flux_common.contracts import catalogue
from flux_common.contracts.envelope import body_bytes, headers_for
from flux_common.contracts.facts import AuditSealed
from flux_common.contracts.runs import CommandApplied, Counts, RunCancelled
from flux_common.kernel.clock import SystemClock
from flux_common.kernel.ids import run_id
from flux_common.settings import KafkaSettings

RUN = str(run_id("nasa", "box-17"))
ORIGIN = log_origin("flux.example", "nasa")
SIGNER = TreeHeadSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
TRUST = Trust([SIGNER.verifier_key(ORIGIN)], "nasa")


def applied(command_id: str) -> CommandApplied:
    """Return an event that has no receipt."""
    return CommandApplied(
        agency_id="nasa", request_id="box-17", run_id=RUN, command_id=command_id, command="cancel", state="CANCELLING"
    )


def cancelled(attempt: int = 1) -> RunCancelled:
    """Return an event that has one."""
    return RunCancelled(
        agency_id="nasa",
        request_id="box-17",
        run_id=RUN,
        run_attempt=attempt,
        command_id="c",
        counts=Counts(read=0, written=0, rejected=0, bytes_in=0, bytes_out=0),
        cancelled_at="2026-11-24T10:00:00.125Z",
    )


def sealed(event_id: UUID, value: bytes, agency: str = "nasa") -> AuditSealed:
    """Return the receipt of an event: the one leaf of a log, made by the audit service's own domain."""
    refs = {"event_id": str(event_id)}
    digest = hashlib.sha256(value).hexdigest()
    fact = Fact("fact-0", agency, "2026-11-24T10:00:00.125Z", "run.cancelled", "ok", {"service": "x"}, digest, refs)
    entry = entry_bytes(fact, 0)
    root = append(Frontier(), [leaf_hash(entry)]).frontier.root
    return AuditSealed(
        agency_id="nasa",
        event_id=str(event_id),
        entry=base64.b64encode(entry).decode(),
        leaf_index=0,
        tree_size=1,
        inclusion_proof=[],
        tree_head=SIGNER.sign(TreeHead(ORIGIN, 1, root)),
    )


async def write_applied(pen: Any, *names: str) -> None:
    """Write one event per name; the name is its command and makes its id."""
    for name in names:
        event_id = UUID(bytes=hashlib.sha256(name.encode()).digest()[:16])
        await pen.write(catalogue.COMPLETIONS, catalogue.COMMAND_APPLIED, applied(name), RUN, event_id)


async def some(events: AsyncIterator[ReceivedEvent], count: int) -> list[str]:
    """Return the commands of the next `count` events."""
    return [(await anext(events)).document()["command_id"] for _ in range(count)]


async def test_an_event_that_is_published_twice_is_heard_once(settings: KafkaSettings, pen: Any) -> None:
    """`ce_id` is the idempotency key, whatever lies between the two."""
    await write_applied(pen, "a", "b", "a", "c")
    async with FluxSubscriber("nasa", settings, start="beginning") as subscriber:
        heard = await some(aiter(subscriber), 3)

    assert heard == ["a", "b", "c"]


async def test_from_the_end_only_what_comes_later_is_heard(settings: KafkaSettings, pen: Any) -> None:
    """A stream that is open misses nothing that is written afterwards."""
    await write_applied(pen, "a")
    async with FluxSubscriber("nasa", settings) as subscriber, subscriber.completions() as completions:
        await write_applied(pen, "b")
        heard = await some(completions, 1)
        silent = await completions.poll()

    assert (heard, silent) == (["b"], None)


async def test_what_was_not_committed_is_not_heard(
    settings: KafkaSettings, pen: Any, topic_prefix: str, kafka_bootstrap: str
) -> None:
    """Records of an aborted transaction are passed over."""
    headers = headers_for(catalogue.COMMAND_APPLIED, event_id="x", source="test", at=SystemClock().now())
    producer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, transactional_id=f"{topic_prefix}t")
    await producer.start()
    try:
        await producer.begin_transaction()
        topic = topic_prefix + catalogue.COMPLETIONS.of("nasa")
        await producer.send_and_wait(topic, body_bytes(applied("lost")), key=RUN.encode(), headers=headers)
        await producer.abort_transaction()
    finally:
        await producer.stop()
    await write_applied(pen, "kept")
    async with FluxSubscriber("nasa", settings, start="beginning") as subscriber:
        heard = await some(aiter(subscriber), 1)

    assert heard == ["kept"]


async def test_what_cannot_be_read_does_not_end_a_subscription(settings: KafkaSettings, pen: Any) -> None:
    """It is skipped; the next one is heard."""
    await pen.write(catalogue.COMPLETIONS, catalogue.RUN_COMPLETED, applied("other"), RUN, uuid4())
    await write_applied(pen, "good")
    async with FluxSubscriber("nasa", settings, start="beginning") as subscriber:
        heard = await some(aiter(subscriber), 1)

    assert heard == ["good"]


async def test_a_group_goes_on_behind_what_was_handled(settings: KafkaSettings, pen: Any) -> None:
    """An event counts as handled when the next one is asked for: the last one given comes again, the others do not."""
    await write_applied(pen, "a", "b", "c")
    async with FluxSubscriber("nasa", settings, group="flux.nasa.readers") as subscriber:
        first = await some(aiter(subscriber), 2)
    async with FluxSubscriber("nasa", settings, group="flux.nasa.readers") as subscriber:
        second = await some(aiter(subscriber), 2)

    assert (first, second) == (["a", "b"], ["b", "c"])


async def test_a_terminal_event_comes_with_its_proof(settings: KafkaSettings, pen: Any) -> None:
    """Its receipt may be written later, and others before it; an event without receipts comes at once."""
    event_id, other = uuid4(), uuid4()
    await write_applied(pen, "a")
    await pen.write(catalogue.COMPLETIONS, catalogue.RUN_CANCELLED, cancelled(), RUN, event_id)
    for about, value in ((other, b"?"), (event_id, body_bytes(cancelled()))):
        await pen.write(catalogue.RECEIPTS, catalogue.AUDIT_SEALED, sealed(about, value), str(about), uuid4())
    async with FluxSubscriber("nasa", settings, start="beginning", trust=TRUST) as subscriber:
        completions = subscriber.completions()
        plain, proven = await anext(completions), await anext(completions)

    assert (plain.type, plain.receipt) == ("flux.run.command-applied.v1", None)
    assert proven.receipt is not None
    assert proven.receipt.entry["refs"]["event_id"] == str(event_id)


@pytest.mark.parametrize(
    ("value", "agency", "failure"),
    [(b"other bytes", "nasa", Failure.INCLUSION), (body_bytes(cancelled()), "esa", Failure.TENANT)],
)
async def test_a_false_receipt_stops_the_event(
    settings: KafkaSettings, pen: Any, value: bytes, agency: str, failure: Failure
) -> None:
    """It is not given: who goes on regardless meets it again."""
    event_id = uuid4()
    await pen.write(catalogue.COMPLETIONS, catalogue.RUN_CANCELLED, cancelled(), RUN, event_id)
    receipt = sealed(event_id, value, agency)
    await pen.write(catalogue.RECEIPTS, catalogue.AUDIT_SEALED, receipt, str(event_id), uuid4())
    async with FluxSubscriber("nasa", settings, start="beginning", trust=TRUST, receipt_timeout_s=20) as subscriber:
        completions = subscriber.completions()
        with pytest.raises(VerificationFailed) as first:
            await anext(completions)
        with pytest.raises(VerificationFailed) as second:
            await anext(completions)

    assert (first.value.failure, second.value.failure) == (failure, failure)


async def test_a_receipt_that_does_not_come_is_an_error(settings: KafkaSettings, pen: Any) -> None:
    """An event without a proof never looks like one with it, and is given once its receipt is there."""
    event_id = uuid4()
    await pen.write(catalogue.COMPLETIONS, catalogue.RUN_CANCELLED, cancelled(), RUN, event_id)
    async with FluxSubscriber("nasa", settings, start="beginning", trust=TRUST, receipt_timeout_s=1) as subscriber:
        completions = subscriber.completions()
        with pytest.raises(ReceiptMissing):
            await anext(completions)
        receipt = sealed(event_id, body_bytes(cancelled()))
        await pen.write(catalogue.RECEIPTS, catalogue.AUDIT_SEALED, receipt, str(event_id), uuid4())
        proven = await anext(completions)

    assert proven.receipt is not None


async def test_receipts_that_pass_by_are_kept_for_who_asks_later(settings: KafkaSettings, pen: Any) -> None:
    """They come in no common order with their events."""
    first, second = uuid4(), uuid4()
    for about in (first, second):
        await pen.write(catalogue.RECEIPTS, catalogue.AUDIT_SEALED, sealed(about, b"v"), "one key", uuid4())
    reader = ReceiptReader("nasa", settings, SystemClock(), "beginning")
    try:
        found = [(await reader.find(str(about), 20))["event_id"] for about in (second, first)]
    finally:
        await reader.close()

    assert found == [str(second), str(first)]


async def test_decisions_and_receipts_are_streams_of_their_own(settings: KafkaSettings, pen: Any) -> None:
    """Receipts are given as they are, for the caller to judge."""
    about = uuid4()
    await pen.write(catalogue.RECEIPTS, catalogue.AUDIT_SEALED, sealed(about, b"v"), str(about), uuid4())
    async with FluxSubscriber("nasa", settings, start="beginning", trust=TRUST) as subscriber:
        receipt = await anext(subscriber.receipts())
        silent = await subscriber.decisions().poll()

    assert (receipt.type, silent) == ("flux.audit.sealed.v1", None)
