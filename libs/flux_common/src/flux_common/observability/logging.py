"""Logs: one JSON object a line, the same shape for Flux and for every library.

`log.info("checkpoint applied", run_id=…, duration_ms=…)` writes `ts, level, service, logger, event, trace_id, span_id`
and the named values. One canonical line per unit of work; never a line per record. An error is an object under
`error`: for a FluxError its code, classification, message and context, for anything else its type and what may be said
of it, and the frames and causes of both. Values of records are never logged, not even inside a library's message.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from typing import Any, Final, TextIO

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

from flux_common.kernel.errors import FluxError
from flux_common.observability.redaction import redact, redact_named, redact_text
from flux_common.settings import LogSettings

# Libraries that say too much at info. A warning of theirs is worth a line.
QUIET_LOGGERS: Final = ("aiokafka", "asyncio", "httpx", "opentelemetry", "urllib3", "uvicorn.access")
FIRST_KEYS: Final = ("ts", "level", "service", "logger", "event", "trace_id", "span_id")

get_logger = structlog.stdlib.get_logger


def configure_logging(service: str, settings: LogSettings, stream: TextIO | None = None) -> None:
    """Send every logger of the process to `stream` (standard error) in Flux's one shape."""
    shared = _steps_of_every_line(service)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(settings)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    logging.captureWarnings(True)
    adopt_library_loggers()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def adopt_library_loggers() -> None:
    """Take the handlers of libraries away, so that what they say reaches ours; again after one was started."""
    for name in list(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def _steps_of_every_line(service: str) -> list[Processor]:
    """Return what is done to every line, ours or a library's, before it is rendered."""

    def name_service(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
        line["service"] = service
        return line

    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        name_service,
        add_trace,
        render_error,
        redact_line,
    ]


def _renderers(settings: LogSettings) -> list[Processor]:
    if settings.format == "console":
        return [structlog.dev.ConsoleRenderer(timestamp_key="ts", colors=sys.stderr.isatty())]
    return [order_keys, structlog.processors.JSONRenderer(default=str, ensure_ascii=False)]


def add_trace(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Name the trace and the span in which the line was written; null outside of any."""
    context = trace.get_current_span().get_span_context()
    line.setdefault("trace_id", f"{context.trace_id:032x}" if context.is_valid else None)
    line.setdefault("span_id", f"{context.span_id:016x}" if context.is_valid else None)
    return line


def render_error(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Turn `exc_info` (True, an exception or its triple) and exceptions among the values into objects."""
    error = _exception(line.pop("exc_info", None))
    if error is not None:
        line["error"] = {**describe_error(error), "stack": list(stack_of(error))}
        line["trace_id"] = line.get("trace_id") or getattr(error, "trace_id", None)
    for name, value in line.items():
        if isinstance(value, BaseException):
            line[name] = describe_error(value)
    return line


def redact_line(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Take secrets and bytes out of every value; structlog's own keys (`_record`, …) stay as they are."""
    return {name: value if name.startswith("_") else redact_named(name, value) for name, value in line.items()}


def order_keys(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Put the keys that every line has first, in one order."""
    return {**{key: line.get(key) for key in FIRST_KEYS}, **line}


def describe_error(error: BaseException) -> dict[str, Any]:
    """Return what may be said of `error`: never a value of a record."""
    if isinstance(error, FluxError):
        return {
            "type": type(error).__name__,
            "code": error.code,
            "classification": str(error.classification),
            "message": redact_text(error.message),
            "context": redact(error.context),
        }
    said = {"type": type(error).__qualname__, "message": _safe_message(error)}
    sqlstate = getattr(error, "sqlstate", None)
    return said if sqlstate is None else {**said, "sqlstate": sqlstate}


def stack_of(error: BaseException) -> Iterator[str]:
    """Yield the frames of `error` and of its causes, oldest cause first, each cause closed by what it was."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from stack_of(cause)
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"{frame.filename}:{frame.lineno} in {frame.name}"
    for member in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        yield from stack_of(member)
    yield f"{type(error).__qualname__}: {_safe_message(error)}"


def _safe_message(error: BaseException) -> str:
    """Return an exception's first line, or nothing of it where the library quotes the input.

    PostgreSQL's classes 22 and 23 and pydantic's ValidationError repeat the offending value.
    """
    sqlstate = str(getattr(error, "sqlstate", None) or "")
    if sqlstate[:2] in ("22", "23") or hasattr(error, "error_count"):
        return "(withheld: it quotes the input)"
    return redact_text((str(error).splitlines() or [""])[0])


def _exception(given: Any) -> BaseException | None:
    """Return the exception that a logger's `exc_info` means."""
    if isinstance(given, BaseException):
        return given
    if isinstance(given, tuple):
        return given[1] if isinstance(given[1], BaseException) else None
    return sys.exc_info()[1] if given else None
