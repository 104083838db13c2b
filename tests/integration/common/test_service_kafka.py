"""The frame of a service with FastStream's broker, and traces over a real Kafka."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from opentelemetry import propagate, trace
from opentelemetry.instrumentation.aiokafka import AIOKafkaInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from wrapt import BaseObjectProxy

from flux_common.observability.tracing import inject, instrument_producers

TOY = Path(__file__).with_name("toy_broker.py")
CARRIED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def _create(bootstrap: str, *topics: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name=topic, num_partitions=1, replication_factor=1) for topic in topics])
    finally:
        await admin.close()


async def _read(bootstrap: str, topic: str, count: int) -> list[ConsumerRecord]:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        records: list[ConsumerRecord] = []
        while len(records) < count:
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                records += batch
        return records
    finally:
        await consumer.stop()


@pytest.fixture
async def producer(kafka_bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    client = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap)
    await client.start()
    yield client
    await client.stop()


async def test_a_service_with_a_broker_waits_works_drains_and_exits_0(
    kafka_bootstrap: str, topic_prefix: str, producer: AIOKafkaProducer
) -> None:
    """It waits for its topics, consumes after them, can still publish while it drains, and logs in one shape."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLUX_")} | {
        "FLUX_OPS_PORT": "0",
        "FLUX_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "FLUX_TOPIC_PREFIX": topic_prefix,
    }
    asked, answered = topic_prefix + "asked", topic_prefix + "answered"
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(TOY), "serve", env=environment, stderr=asyncio.subprocess.PIPE, limit=2**20
    )
    try:
        lines = [await _line(process, "waiting")]
        await _create(kafka_bootstrap, asked, answered)
        lines.append(await _line(process, "started"))
        await producer.send_and_wait(asked, b"hello", headers=[("content-type", b"text/plain")])
        lines.append(await _line(process, "answering"))
        await _read(kafka_bootstrap, answered, 1)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        rest = (await process.stderr.read()).splitlines()
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()

    assert code == 0, rest
    assert [record.value for record in await _read(kafka_bootstrap, answered, 2)] == [b"HELLO", b"bye"]
    assert lines[0]["why"] == f"TOPIC_MISSING: no topic {answered}, {asked}; run the topics job"
    assert {line["service"] for line in [*lines, *map(json.loads, rest)]} == {"toy"}


async def _line(process: asyncio.subprocess.Process, event: str) -> dict[str, Any]:
    assert process.stderr is not None
    while raw := await process.stderr.readline():
        line: dict[str, Any] = json.loads(raw)
        if line["event"] == event:
            return line
    raise AssertionError(f"the toy ended without saying {event!r}")


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Instrument this process as a service with an exporter is, and undo it."""
    exporter, provider, before = InMemorySpanExporter(), TracerProvider(), propagate.get_global_textmap()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    propagate.set_global_textmap(TraceContextTextMapPropagator())
    send = AIOKafkaProducer.send
    instrument_producers(provider)
    yield exporter
    AIOKafkaInstrumentor().uninstrument()
    AIOKafkaProducer.send = send
    propagate.set_global_textmap(before)
    provider.shutdown()


async def test_sends_are_spanned_once_and_batches_not_at_all(
    kafka_bootstrap: str, topic_prefix: str, spans: InMemorySpanExporter, producer: AIOKafkaProducer
) -> None:
    """A plain send gets one span and one header; a record that carries its trace keeps it; getmany adds no span."""
    topic = topic_prefix + "t"
    await _create(kafka_bootstrap, topic)
    await producer.send_and_wait(topic, b"plain")
    await producer.send_and_wait(topic, b"row", headers=inject([("ce_id", b"1")], CARRIED))
    plain, row = await _read(kafka_bootstrap, topic, 2)
    (span,) = spans.get_finished_spans()

    assert (span.name, span.kind) == (f"{topic} send", trace.SpanKind.PRODUCER)
    assert dict(plain.headers)["traceparent"].decode().split("-")[1] == trace.format_trace_id(span.context.trace_id)
    assert list(row.headers) == [("ce_id", b"1"), ("traceparent", CARRIED.encode())]
    assert not isinstance(AIOKafkaConsumer.getmany, BaseObjectProxy)
