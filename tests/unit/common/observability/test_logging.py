"""Logs: one JSON object a line, in one shape, without secrets or contents."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from pydantic import BaseModel, ValidationError

from flux_common.kernel.errors import Classification, Unavailable
from flux_common.observability.logging import FIRST_KEYS, configure_logging, get_logger
from flux_common.settings import LogSettings

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Log to memory; what was configured before is put back."""
    root, out = logging.getLogger(), io.StringIO()
    before, level = list(root.handlers), root.level
    configure_logging("ingest", LogSettings(level="info", format="json"), out)
    yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    root.handlers[:] = before
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def test_a_line_opens_with_the_same_keys_whoever_writes_it(lines: Lines) -> None:
    """Flux, a library and a warning all write one object of one shape, on one line each."""
    get_logger("flux_ingest.loop").info("checkpoint applied", run_id=UUID(int=1), duration_ms=3)
    logging.getLogger("aiokafka.consumer").warning("heartbeat of %s\nlate", "g1")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old call", DeprecationWarning, stacklevel=1)
    written = lines()

    assert [tuple(line)[: len(FIRST_KEYS)] for line in written] == [FIRST_KEYS] * 3
    assert {line["service"] for line in written} == {"ingest"}
    assert written[0] | {"ts": ""} == {
        "ts": "",
        "level": "info",
        "service": "ingest",
        "logger": "flux_ingest.loop",
        "event": "checkpoint applied",
        "trace_id": None,
        "span_id": None,
        "run_id": "00000000-0000-0000-0000-000000000001",
        "duration_ms": 3,
    }
    assert (written[1]["logger"], written[1]["event"]) == ("aiokafka.consumer", "heartbeat of g1\nlate")


def test_a_library_with_its_own_handler_is_adopted(lines: Lines) -> None:
    """A logger that FastStream or uvicorn gave a handler of its own still writes in our shape, once."""
    from flux_common.observability.logging import adopt_library_loggers

    stray = logging.getLogger("faststream.access.kafka")
    stray.addHandler(logging.StreamHandler(io.StringIO()))
    stray.propagate = False
    adopt_library_loggers()
    stray.warning("received")

    assert [line["event"] for line in lines()] == ["received"]


def test_a_line_names_its_span(lines: Lines) -> None:
    """Whoever logs inside a span names the trace without knowing of it, libraries included."""
    with TracerProvider().get_tracer("t").start_as_current_span("s") as span:
        get_logger().info("ours")
        logging.getLogger("uvicorn.error").info("theirs")
        context = span.get_span_context()
    expected = (trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id))

    assert [(line["trace_id"], line["span_id"]) for line in lines()] == [expected, expected]


def test_an_error_of_ours_is_said_in_full(lines: Lines) -> None:
    """A FluxError becomes an object with code, classification, context and frames, and lends the line its trace."""
    try:
        raise (
            Unavailable("DATABASE_UNAVAILABLE", "no answer", classification=Classification.STORAGE)
            .with_context(agency_id="nasa", password="canary-word")
            .with_trace_id("a" * 32)
        )
    except Unavailable as error:
        get_logger().error("lane stopped", exc_info=error)
    (line,) = lines()
    stack = line["error"].pop("stack")

    assert line["error"] == {
        "type": "Unavailable",
        "code": "DATABASE_UNAVAILABLE",
        "classification": "storage",
        "message": "no answer",
        "context": {"agency_id": "nasa", "password": "[redacted]"},
    }
    assert line["trace_id"] == "a" * 32
    assert "test_an_error_of_ours_is_said_in_full" in stack[0]


def test_causes_are_told_oldest_first(lines: Lines) -> None:
    """The frames of a cause stand before those of what it caused."""
    try:
        try:
            raise OSError("connection refused")
        except OSError as cause:
            raise Unavailable("BROKER_UNAVAILABLE", "no broker") from cause
    except Unavailable:
        get_logger().exception("gave up")
    stack = lines()[0]["error"]["stack"]

    assert [line for line in stack if not line.startswith("/")] == [
        "OSError: connection refused",
        "Unavailable: BROKER_UNAVAILABLE: no broker",
    ]


class Model(BaseModel):
    """Anything that pydantic refuses."""

    number: int


def _refused_by_pydantic() -> Exception:
    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"number": "canary-word"})
    return caught.value


def _refused_by_postgres() -> Exception:
    error = asyncpg.UniqueViolationError('duplicate key value violates unique constraint "k"')
    error.detail = "Key (id)=(canary-word) already exists."
    return error


@pytest.mark.parametrize("refused", [_refused_by_pydantic, _refused_by_postgres])
def test_messages_of_libraries_that_quote_input_are_withheld(lines: Lines, refused: Callable[[], Exception]) -> None:
    """Neither pydantic's nor PostgreSQL's word on a bad value brings the value into a log."""
    get_logger().error("record refused", exc_info=refused(), cause=refused())
    (line,) = lines()

    assert "canary-word" not in json.dumps(line)
    assert line["error"]["message"] == "(withheld: it quotes the input)"


TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "values",
    [
        {"authorization": "canary-word"},
        {"token": "canary-word"},
        {"access_token": "canary-word"},
        {"db-password": "canary-word"},
        {"headers": [("Authorization", b"canary-word"), ("ce_id", b"1")]},
        {"headers": (("flux-proof", "canary-word"),)},
        {"nested": {"deep": [{"Password": "canary-word"}]}},
        {"said": "sent Bearer canary-word to"},
        {"said": f"got {TOKEN} there"},
        {"dsn": "postgresql://u:canary-word@h/db"},
        {"value": b"canary-word"},
        {"key": bytearray(b"canary-word")},
    ],
)
def test_secrets_and_contents_never_pass(lines: Lines, values: dict[str, Any]) -> None:
    """A value under a secret's name, a token in any text and bytes of any kind are not written."""
    get_logger().warning("seen", **values)
    written = json.dumps(lines())

    assert "canary-word" not in written
    assert TOKEN not in written


def test_a_library_cannot_write_a_token_either(lines: Lines) -> None:
    """A library's message passes the same nets as ours."""
    logging.getLogger("uvicorn.error").error("refused header Authorization: Bearer %s", TOKEN)

    assert lines()[0]["event"] == "refused header Authorization: [redacted]"


def test_names_that_only_resemble_secrets_pass(lines: Lines) -> None:
    """Redaction does not eat digests, counts and paths."""
    get_logger().info("x", jti_sha256="ab", token_count=3, password_file="/run/secrets/p", tokens_used=1)

    assert {key: lines()[0][key] for key in ("jti_sha256", "token_count", "password_file")} == {
        "jti_sha256": "ab",
        "token_count": 3,
        "password_file": "/run/secrets/p",
    }


def test_what_is_below_the_level_is_not_written(lines: Lines) -> None:
    """Debug lines and the chatter of libraries stay out at level info."""
    get_logger().debug("no")
    logging.getLogger("aiokafka").info("no")

    assert lines() == []


def test_console_format_is_for_people(lines: Lines) -> None:
    """The console format writes text, not JSON."""
    out = io.StringIO()
    configure_logging("ingest", LogSettings(format="console"), out)
    get_logger().info("ready", port=8080)

    assert "ready" in out.getvalue()
    assert "port" in out.getvalue()
