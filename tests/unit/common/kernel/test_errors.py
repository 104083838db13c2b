"""An error's class instructs the loop, its code is in the register, its context helps and never tells values."""

from __future__ import annotations

import pytest

from flux_common.kernel import errors
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Classification, FluxError, InvalidMessage, Unavailable, ValidationFailed

CLASSES = {
    errors.InvalidMessage: (FluxError, Classification.VALIDATION),
    errors.ValidationFailed: (errors.InvalidMessage, Classification.VALIDATION),
    errors.RunBroken: (FluxError, Classification.CHECKPOINT),
    errors.Unavailable: (FluxError, Classification.BROKER),
    errors.Overloaded: (errors.Unavailable, Classification.BROKER),
    errors.Fenced: (FluxError, Classification.CHECKPOINT),
    errors.LaneStopped: (FluxError, Classification.BROKER),
    errors.InvariantBroken: (FluxError, Classification.INTERNAL),
    errors.IsolationViolation: (errors.InvariantBroken, Classification.AUTHORIZATION),
}


@pytest.mark.parametrize(("kind", "expected"), CLASSES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_classes(kind: type[FluxError], expected: tuple[type[FluxError], Classification]) -> None:
    """Each class stands below the one whose instruction it refines, and knows whose concern it is."""
    assert (kind.__base__, kind(Code.FORK, "x").classification) == expected


def test_an_error_in_the_usual_shape() -> None:
    """Code and message come first, context and trace are added, and the error itself is handed on to be raised."""
    problem = (
        ValidationFailed(Code.AGENCY_NOT_FOUND, "Agency 'x' is not registered")
        .with_context(run_id="r", offset=7)
        .with_trace_id("0af7")
    )

    assert isinstance(problem, InvalidMessage)
    assert str(problem) == "AGENCY_NOT_FOUND: Agency 'x' is not registered"
    assert (problem.code, problem.context, problem.trace_id) == (
        "AGENCY_NOT_FOUND",
        {"run_id": "r", "offset": 7},
        "0af7",
    )


def test_contexts_are_not_shared() -> None:
    """What is told of one error is not told of another."""
    first, second = FluxError(Code.FORK, "x").with_context(a=1), FluxError(Code.FORK, "x")
    told, untold = ValidationFailed(Code.FORK, "x").with_violations([("/a", "type")]), ValidationFailed(Code.FORK, "x")

    assert (first.context, second.context) == ({"a": 1}, {})
    assert (told.violations, untold.violations) == ((("/a", "type"),), ())


def test_a_classification_can_be_given() -> None:
    """Storage that does not answer is not the broker's concern."""
    problem = Unavailable(Code.STORE_UNAVAILABLE, "x", retry_in=0.5, classification=Classification.STORAGE)

    assert (problem.classification, problem.retry_in) == (Classification.STORAGE, 0.5)
    assert FluxError(Code.FORK, "x").classification == Classification.INTERNAL
