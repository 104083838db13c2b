"""Model and schema judge alike what no example shows: awkward values at every place, and changes at random."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from flux_common.contracts.catalogue import EVENTS, EventSpec
from flux_common.contracts.export import schema_path

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])

AWKWARD_TEXTS = (
    *("", ".", "..", "a/../b", "/a", "a//b", "a/.b", "...", "s3://b/k", "s3://b/é", "x1://h:1/%zz", "x1://u:p@h/", "1"),
    *("0" * 64 + "\n", "A_CODE", "A_CODE\n", "\n", "\u2028", "٣", "x" * 129, "x" * 513, "0.5", "true"),
    *("2026-02-29T00:00:00.000Z", "2024-02-29T23:59:59.999Z", "0000-01-01T00:00:00.000Z", "2026-00-10T00:00:00.000Z"),
    *("2026-11-24T24:00:00.000Z", "2026-12-31T23:59:60.000Z"),
)
AWKWARD_NUMBERS = (0, 1, -1, 1.0, -0.0, 0.5, 1e3, 1e300, 2**53 - 1, 2**53, 2**63, float(2**53), 1.0000001)
AWKWARD: tuple[Any, ...] = (None, True, False, [], {}, *AWKWARD_NUMBERS, *AWKWARD_TEXTS)

TEXTS = st.sampled_from(AWKWARD_TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NUMBERS = st.sampled_from(AWKWARD_NUMBERS) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))


def _examples(spec: EventSpec) -> list[Any]:
    folder = REPOSITORY / "schemas/examples" / spec.name / "v1/valid"
    return [json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))]


def _places(node: Any) -> list[tuple[Any, Any]]:
    """Return every (container, name or index) of a document."""
    names = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
    return [(node, name) for name in names] + [place for name in names for place in _places(node[name])]


def _change(draw: st.DrawFn, document: Any) -> None:
    """Change one place of `document`: another value, a little more text, one member less or one more."""
    container, name = draw(st.sampled_from(_places(document)))
    value = container[name]
    how = draw(st.sampled_from(["replace", "vary", "remove", "add"]))
    if how == "remove":
        del container[name]
    elif how == "add" and isinstance(container, dict):
        container[draw(TEXTS)] = draw(VALUES)
    elif how == "vary" and isinstance(value, str):
        container[name] = draw(st.sampled_from([value + "\n", value.upper(), value * 9, value[:-1], f" {value}"]))
    elif how == "vary" and isinstance(value, int):
        container[name] = draw(st.sampled_from([float(value), -value, value + 0.5, str(value), bool(value)]))
    else:
        container[name] = draw(VALUES)


@st.composite
def changed(draw: st.DrawFn, spec: EventSpec) -> Any:
    """Return a valid example of `spec` with up to three changes."""
    document = copy.deepcopy(draw(st.sampled_from(_examples(spec))))
    for _ in range(draw(st.integers(0, 3))):
        if _places(document):
            _change(draw, document)
    return document


def _model_takes(spec: EventSpec, document: Any, *, text: bool) -> bool:
    try:
        spec.model.model_validate_json(json.dumps(document)) if text else spec.model.model_validate(document)
    except ValidationError:
        return False
    return True


def _verdicts(spec: EventSpec, document: Any) -> tuple[bool, bool, bool]:
    """Return what the committed schema in a stock validator, the model over text and the model over values say."""
    taken = _model_takes(spec, document, text=True), _model_takes(spec, document, text=False)
    return _stock_validator(spec).is_valid(document), *taken


@cache
def _stock_validator(spec: EventSpec) -> Draft202012Validator:
    schema = json.loads((REPOSITORY / schema_path(spec)).read_bytes())
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


@pytest.mark.parametrize("spec", EVENTS.values(), ids=lambda spec: spec.name)
def test_awkward_values_are_judged_alike(spec: EventSpec) -> None:
    """Every awkward value at every place of a valid example has one verdict, and both verdicts occur."""
    document = max(_examples(spec), key=lambda example: len(json.dumps(example)))
    verdicts = set()
    for container, name in _places(document):
        original = container[name]
        for value in (*AWKWARD, original, f"{original}\n"):
            container[name] = value
            verdicts.add(_verdicts(spec, document))
        container[name] = original

    assert verdicts == {(True, True, True), (False, False, False)}


@pytest.mark.parametrize("spec", EVENTS.values(), ids=lambda spec: spec.name)
def test_changed_examples_are_judged_alike(spec: EventSpec) -> None:
    """Whatever a few random changes make of a valid example has one verdict."""

    @SETTINGS
    @given(changed(spec))
    def judge(document: Any) -> None:
        by_schema, *by_model = _verdicts(spec, document)

        assert by_model == [by_schema, by_schema]

    judge()
