"""Traces: one from a request to its receipt, over Kafka headers and outbox rows.

A record's `traceparent` (W3C Trace Context) is the *creation context* of the event. A batch is worked under one
*process* span that links to the creation contexts of its records (OpenTelemetry messaging conventions); what a record
causes carries that record's trace on, so a trace follows the run and not the batch. Spans are per batch; sends are
spanned by opentelemetry-instrumentation-aiokafka, except records that already carry a `traceparent`: the relay's rows
keep the one they were committed with. Tracing never fails work: a header that is not well-formed is no context.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.aiokafka import AIOKafkaInstrumentor
from opentelemetry.instrumentation.utils import unwrap
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from wrapt import wrap_function_wrapper

from flux_common.observability.redaction import redact_text
from flux_common.settings import TelemetrySettings

Header = tuple[str, bytes | None]
TRACEPARENT: Final = "traceparent"
LINKS_MAX: Final = 128

# version 00, trace-id, parent-id, flags (W3C Trace Context §3.2); all-zero ids are not valid.
_FORM: Final = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


def configure_tracing(service: str, version: str, settings: TelemetrySettings) -> Callable[[], None]:
    """Set the process's tracer up; return what flushes and closes it.

    Without an endpoint or a file nothing is exported, yet spans have ids: logs and outbox rows name them.
    """
    provider = TracerProvider(
        resource=Resource.create({"service.name": f"flux-{service}", "service.version": version}),
        sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
    )
    if settings.otlp_endpoint:
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.otlp_endpoint)))
    if settings.trace_file:
        provider.add_span_processor(SimpleSpanProcessor(_file_exporter(settings)))
    trace.set_tracer_provider(provider)
    propagate.set_global_textmap(TraceContextTextMapPropagator())
    if settings.otlp_endpoint or settings.trace_file:
        instrument_producers(provider)
    return provider.shutdown


def _file_exporter(settings: TelemetrySettings) -> ConsoleSpanExporter:
    """Return an exporter that appends one JSON object a line, written at once so that a kill loses nothing."""
    assert settings.trace_file is not None
    out = settings.trace_file.open("a", encoding="utf-8", buffering=1)
    return ConsoleSpanExporter(out=out, formatter=lambda span: (span.to_json(indent=None) or "") + "\n")


def instrument_producers(provider: trace.TracerProvider) -> None:
    """Span every send that starts a trace, and single receives; never the batch loop, which has a span of its own."""
    instrumentor = AIOKafkaInstrumentor()
    if not instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.instrument(tracer_provider=provider)
        unwrap("aiokafka.AIOKafkaConsumer", "getmany")
        wrap_function_wrapper("aiokafka", "AIOKafkaProducer.send", _send_as_carried)


def _send_as_carried(
    send: Callable[..., Awaitable[Any]], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Awaitable[Any]:
    """Send a record that already carries its trace past the instrumentation, which would add a second header."""
    headers = args[5] if len(args) > 5 else kwargs.get("headers")
    carried = any(name == TRACEPARENT for name, _value in headers or ())
    return (send.__wrapped__ if carried else send)(*args, **kwargs)  # type: ignore[attr-defined]


def tracer() -> trace.Tracer:
    """Return the tracer of Flux's own spans."""
    return trace.get_tracer("flux")


def current_traceparent() -> str | None:
    """Return the `traceparent` of the current span, or None outside of any."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def extract(headers: Iterable[Header]) -> SpanContext | None:
    """Return the creation context that `headers` carry; None where there is none, or none well-formed, or several."""
    found = [value for name, value in headers if name == TRACEPARENT]
    match = _FORM.fullmatch(found[0] or b"") if len(found) == 1 else None
    if match is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in match.groups())
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags & TraceFlags.SAMPLED))


def carried_traceparent(headers: Iterable[Header]) -> str | None:
    """Return the `traceparent` for an event that a record with `headers` causes.

    It is the record's own where it has one, so that the trace follows the run; else that of the current span.
    """
    context = extract(headers)
    if context is None:
        return current_traceparent()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def inject(headers: Sequence[Header], traceparent: str | None = None) -> list[Header]:
    """Return `headers` with `traceparent`, or the current span's, as their only one; unchanged without either."""
    chosen = traceparent or current_traceparent()
    if chosen is None:
        return list(headers)
    return [*((name, value) for name, value in headers if name != TRACEPARENT), (TRACEPARENT, chosen.encode())]


@contextmanager
def process_span(topic: str, records: Sequence[Iterable[Header]], **attributes: str | int) -> Iterator[Span]:
    """Work a batch of `topic` under one span, linked to the creation contexts of its records' headers.

    A batch of one is also a child of its record's context. At most `LINKS_MAX` links are kept. An exception marks the
    span as failed and goes on.
    """
    created = _creation_contexts(records)
    alone = created[0] if len(records) == 1 and created else None
    parent = trace.set_span_in_context(trace.NonRecordingSpan(alone)) if alone else None
    with tracer().start_as_current_span(
        f"{topic} process",
        context=parent,
        kind=SpanKind.CONSUMER,
        links=[Link(context) for context in created],
        attributes={
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.operation.name": "process",
            "messaging.destination.name": topic,
            "messaging.batch.message_count": len(records),
            **attributes,
        },
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        yield from _marked(span)


def _creation_contexts(records: Sequence[Iterable[Header]]) -> list[SpanContext]:
    """Return the first `LINKS_MAX` distinct contexts of a batch; a long batch is not read further than that."""
    found: dict[tuple[int, int], SpanContext] = {}
    for headers in records:
        context = extract(headers)
        if context is not None:
            found.setdefault((context.trace_id, context.span_id), context)
        if len(found) == LINKS_MAX:
            break
    return list(found.values())


@contextmanager
def step_span(name: str, traceparent: str | None = None, **attributes: str | int) -> Iterator[Span]:
    """Work a step of Flux's own (a slice, a dispatch, a relay transaction) under a span.

    `traceparent` names the context it continues; without one it is a child of the current span.
    """
    context = extract([(TRACEPARENT, traceparent.encode())]) if traceparent else None
    parent = trace.set_span_in_context(trace.NonRecordingSpan(context)) if context else None
    with tracer().start_as_current_span(
        name, context=parent, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        yield from _marked(span)


def _marked(span: Span) -> Iterator[Span]:
    """Yield `span`, and mark it where the work under it fails; the message of an exception may quote input."""
    try:
        yield span
    except Exception as error:
        span.set_attribute("error.type", type(error).__qualname__)
        span.set_status(Status(StatusCode.ERROR, redact_text(str(getattr(error, "code", type(error).__qualname__)))))
        raise
