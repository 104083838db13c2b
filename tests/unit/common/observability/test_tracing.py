"""Traces: what a header may say, and how a batch's span relates to its records."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flux_common.observability import tracing
from flux_common.observability.tracing import carried_traceparent, current_traceparent, extract, inject, process_span

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
OTHER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TOPIC = "flux-internal.progress.v1"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "tracer", lambda: provider.get_tracer("flux"))
    yield exporter
    provider.shutdown()


def _headers(*traceparents: str | bytes | None) -> list[tuple[str, bytes | None]]:
    return [("traceparent", each.encode() if isinstance(each, str) else each) for each in traceparents]


def _linked(span: ReadableSpan) -> list[str]:
    return [trace.format_span_id(link.context.span_id) for link in span.links]


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_a_malformed_traceparent_is_no_context(value: str | bytes | None) -> None:
    """Strangers' headers never break work and never enter a trace unless they are well-formed."""
    assert extract(_headers(value)) is None


def test_two_traceparents_are_no_context() -> None:
    """A repeated header is ambiguous, so it says nothing."""
    assert extract(_headers(PARENT, OTHER)) is None


def test_a_traceparent_survives_the_way_through_headers() -> None:
    """What is injected is extracted again, and replaces what was there."""
    headers = inject([("ce_id", b"1"), *_headers(OTHER)], PARENT)

    assert headers == [("ce_id", b"1"), ("traceparent", PARENT.encode())]
    assert carried_traceparent(headers) == PARENT


def test_without_a_context_nothing_is_injected() -> None:
    """Outside of any span a record goes out as it is."""
    assert current_traceparent() is None
    assert inject([("ce_id", b"1")]) == [("ce_id", b"1")]


def test_an_effect_carries_its_records_trace_and_not_the_batchs(spans: InMemorySpanExporter) -> None:
    """The trace follows the run: only a record without a context hands the batch's on."""
    with process_span(TOPIC, [_headers(PARENT), []]):
        carried = [carried_traceparent(_headers(PARENT)), carried_traceparent([])]
        own = current_traceparent()

    assert carried == [PARENT, own]
    assert own is not None
    assert own != PARENT


def test_a_batch_is_one_span_linked_to_each_creation_context_once(spans: InMemorySpanExporter) -> None:
    """The process span names what it works on and links to the records' contexts, as the conventions say."""
    with process_span(TOPIC, [_headers(PARENT), _headers(PARENT), _headers(OTHER), []], kafka_partition=3):
        pass
    (span,) = spans.get_finished_spans()

    assert (span.name, span.kind, span.parent) == (f"{TOPIC} process", trace.SpanKind.CONSUMER, None)
    assert _linked(span) == [SPAN, "00f067aa0ba902b7"]
    assert span.attributes is not None
    assert span.attributes["messaging.batch.message_count"] == 4
    assert span.attributes["kafka_partition"] == 3


def test_a_batch_of_one_is_also_a_child(spans: InMemorySpanExporter) -> None:
    """A single record's work stands in the record's own trace."""
    with process_span(TOPIC, [_headers(PARENT)]):
        pass
    (span,) = spans.get_finished_spans()

    assert span.parent is not None
    assert trace.format_span_id(span.parent.span_id) == SPAN
    assert trace.format_trace_id(span.context.trace_id) == TRACE


def test_links_have_a_bound(spans: InMemorySpanExporter) -> None:
    """A batch of thousands does not make a span of thousands of links."""
    with process_span(TOPIC, [_headers(f"00-{number:032x}-{SPAN}-01") for number in range(1, 300)]):
        pass

    assert len(spans.get_finished_spans()[0].links) == tracing.LINKS_MAX


def test_a_failed_batch_marks_its_span_without_quoting_the_error(spans: InMemorySpanExporter) -> None:
    """A trace says that and what kind of thing failed, never a value."""
    with pytest.raises(ValueError, match="canary-word"), process_span(TOPIC, []):
        raise ValueError("canary-word")
    (span,) = spans.get_finished_spans()

    assert span.status.status_code is trace.StatusCode.ERROR
    assert "canary-word" not in span.to_json()


def test_a_step_continues_the_trace_of_a_row(spans: InMemorySpanExporter) -> None:
    """Work that starts from a stored traceparent is its child."""
    with tracing.step_span("slice", PARENT, seq=1):
        pass
    (span,) = spans.get_finished_spans()

    assert trace.format_trace_id(span.context.trace_id) == TRACE
