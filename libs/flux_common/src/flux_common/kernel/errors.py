"""Errors whose class is an instruction to the loop, and whose code is a line in docs/error-codes.md.

The classes (docs/semantics.md) say what happens next; the classification says whose concern it is; the code
says what went wrong, to a person and to a program alike. A code never carries a value of a stranger's input.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Self


class Classification(StrEnum):
    """Whose concern an error is."""

    VALIDATION = "validation"
    AUTHENTICATION = "authentication"
    AUTHORIZATION = "authorization"
    CHECKPOINT = "checkpoint"
    TRANSFORM = "transform"
    STORAGE = "storage"
    BROKER = "broker"
    AUDIT = "audit"
    INTERNAL = "internal"


class FluxError(Exception):
    """Something went wrong, with a classification, a code, a message for people and context for machines."""

    classification = Classification.INTERNAL

    def __init__(self, code: str, message: str, *, classification: Classification | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = str(code)
        self.message = message
        if classification is not None:
            self.classification = classification
        self.context: dict[str, Any] = {}
        self.trace_id: str | None = None

    def with_context(self, **context: Any) -> Self:
        """Add ids that help to find what happened; never values of input."""
        self.context.update(context)
        return self

    def with_trace_id(self, trace_id: str | None) -> Self:
        """Name the trace in which it happened."""
        self.trace_id = trace_id
        return self


class InvalidMessage(FluxError):
    """One record cannot be read or is not allowed: dead-letter it and go on."""

    classification = Classification.VALIDATION


class ValidationFailed(InvalidMessage):
    """A record was read and breaks its contract; `violations` says where, as (JSON pointer, schema keyword)."""

    violations: tuple[tuple[str, str], ...] = ()

    def with_violations(self, violations: Iterable[tuple[str, str]]) -> Self:
        """Name the places; never what stands there."""
        self.violations = tuple(violations)
        return self


class RunBroken(FluxError):
    """A run's own records contradict each other: dead-letter the record and fail that run."""

    classification = Classification.CHECKPOINT


class Unavailable(FluxError):
    """Something that Flux needs does not answer: advance nothing, back off, try again.

    After `retry_in` seconds; whoever waits longer at each try waits `retry_max` at most, where that is set.
    """

    classification = Classification.BROKER

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retry_in: float = 1.0,
        retry_max: float | None = None,
        classification: Classification | None = None,
    ) -> None:
        super().__init__(code, message, classification=classification)
        self.retry_in, self.retry_max = retry_in, retry_max


class Overloaded(Unavailable):
    """There is no room at present: pause the lane until there is."""


class Fenced(FluxError):
    """Somebody newer owns this lane, shard or item: let go of it."""

    classification = Classification.CHECKPOINT


class LaneStopped(FluxError):
    """This lane must not go on without an operator (data lost, topic exchanged); other lanes are not hurt."""

    classification = Classification.BROKER


class InvariantBroken(FluxError):
    """Our own tables or logs contradict themselves: stop the process with a full record of why."""


class IsolationViolation(InvariantBroken):
    """The database refused access to another agency's rows: stop and alert."""

    classification = Classification.AUTHORIZATION
