"""aiokafka producers as Flux needs them: made with one set of limits, awaited to the last future, thrown away on doubt.

Theory, all measured: one batch that the broker refuses poisons an idempotent producer's sequence for that Kafka
partition for good, and a transaction commits although sends inside it failed. So limits stay below the topics'
(`max.message.bytes` is 2 MiB), every send's future is awaited, and after any error the producer is closed and another
one made. A producer that hangs is cut off: `stop` waits for answers that may never come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import IllegalOperation, KafkaError, ProducerFenced

from flux_common.contracts.envelope import Outgoing
from flux_common.kafka.errors import PublishRefused, final_refusal, unavailable
from flux_common.kafka.names import Names
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Fenced, FluxError
from flux_common.settings import KafkaSettings

RECORD_BYTES_MAX: Final = 2 * 2**20 - 64 * 2**10
BATCH_BYTES_MAX: Final = 2**20
RECORD_OVERHEAD: Final = 128
CLOSE_SECONDS: Final = 5.0
REQUEST_TIMEOUT_MS: Final = 10_000

# What a producer raises: also bare assertions once its transaction is in a state that cannot go on, and a complaint of its
# own about the next send when it learned between two sends that it is fenced.
PRODUCER_ERRORS: Final = (KafkaError, IllegalOperation, AssertionError, TimeoutError)


def new_producer(settings: KafkaSettings, **options: Any) -> AIOKafkaProducer:
    """Return an idempotent producer, not started."""
    connection = settings.aiokafka_options()
    connection["request_timeout_ms"] = min(settings.request_timeout_ms, REQUEST_TIMEOUT_MS)
    return AIOKafkaProducer(
        acks="all",
        enable_idempotence=True,
        max_request_size=RECORD_BYTES_MAX,
        max_batch_size=BATCH_BYTES_MAX,
        **connection,
        **options,
    )


def size_of(event: Outgoing) -> int:
    """Return how many bytes the event takes at most as a record."""
    headers = sum(len(name) + len(value) + 10 for name, value in event.headers)
    return len(event.value) + len(event.key or "") * 4 + headers + RECORD_OVERHEAD


def refuse_oversized(events: Sequence[Outgoing]) -> None:
    """Raise PublishRefused for the first event that no topic takes; before anything was sent."""
    for index, event in enumerate(events):
        if size_of(event) > RECORD_BYTES_MAX:
            raise PublishRefused(index, Code.TOO_LARGE, f"The event is larger than {RECORD_BYTES_MAX} bytes")


async def send_all(producer: AIOKafkaProducer, names: Names, events: Sequence[Outgoing]) -> None:
    """Send events in order and await every one.

    Raises:
        PublishRefused: the broker will never take one of them.
        Fenced: another producer has this transactional id.
        Unavailable: anything else; some of the events may have been written.
    """
    futures: list[asyncio.Future[Any]] = []
    try:
        for event in events:
            futures.append(
                await producer.send(
                    names.outward(event.topic),
                    event.value,
                    key=None if event.key is None else event.key.encode(),
                    partition=event.kafka_partition,
                    headers=event.headers,
                )
            )
        results = await asyncio.gather(*futures, return_exceptions=True)
    except PRODUCER_ERRORS as problem:
        failed = [*(_given_up(future) for future in futures), problem]
        raise judged(failed, events[: len(failed)]) from problem
    failed = [result if isinstance(result, BaseException) else None for result in results]
    if any(failed):
        raise judged(failed, events)


def _given_up(future: asyncio.Future[Any]) -> BaseException | None:
    """Wait no longer for a send; return why it has failed already, if it has."""
    future.cancel()
    return None if future.cancelled() else future.exception()


def judged(failed: Sequence[BaseException | None], events: Sequence[Outgoing]) -> FluxError:
    """Return what failed sends mean; `failed` and `events` go in parallel."""
    fenced = next((problem for problem in failed if isinstance(problem, ProducerFenced)), None)
    if fenced is not None:
        return Fenced(Code.LEASE_LOST, "Another producer has this transactional id now")
    final = [index for index, problem in enumerate(failed) if problem is not None and final_refusal(problem)]
    if final and events:
        index = max(final, key=lambda i: size_of(events[i]))  # a batch fails whole: its largest event is the cause
        problem = failed[index]
        assert problem is not None
        code, message = final_refusal(problem) or (Code.RECORD_REFUSED, "")
        return PublishRefused(index, code, message)
    return unavailable(next(problem for problem in failed if problem is not None), "publish")


async def discard(producer: AIOKafkaProducer) -> None:
    """Close a producer in order, or cut it off when that takes too long; never raises an error of Kafka."""
    doubts = _doubts(producer)
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await producer.stop()
    except PRODUCER_ERRORS:
        await _cut_off(producer)
    for future in doubts:
        if future.done() and not future.cancelled():
            future.exception()  # seen: every send was awaited, and these say the same again


async def _cut_off(producer: AIOKafkaProducer) -> None:
    """End what `stop` waits for in vain."""
    if producer._sender.sender_task is not None:
        producer._sender.sender_task.cancel()
    producer._message_accumulator.fail_all(KafkaError("The producer was given up"))
    with suppress(*PRODUCER_ERRORS):
        async with asyncio.timeout(CLOSE_SECONDS):
            await producer.client.close()


def _doubts(producer: AIOKafkaProducer) -> list[asyncio.Future[Any]]:
    """Return the futures of the client's own that nobody awaits once a producer is given up."""
    accumulator, transactions = producer._message_accumulator, producer._txn_manager
    batches = [batch for queued in accumulator._batches.values() for batch in queued] + list(
        accumulator._pending_batches
    )
    waiter = getattr(transactions, "_transaction_waiter", None)
    return [batch._drain_waiter for batch in batches] + ([waiter] if waiter is not None else [])
