"""Model and schema judge alike what nobody thought of: valid examples, changed at random."""

from __future__ import annotations

import copy
import json
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
SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

TEXTS = st.one_of(
    st.sampled_from(["", ".", "..", "a/../b", "/a", "a//b", "a/.b", "...", "s3://b/k", "s3://b/é", "x://h:1/%zz", "1"]),
    st.sampled_from(["0" * 64, "0" * 64 + "\n", "A_CODE", "A_CODE\n", "\n", "\u2028", "٣", "x" * 129, "x" * 257]),
    st.sampled_from(["2026-02-29T00:00:00.000Z", "2024-02-29T23:59:59.999Z", "0000-01-01T00:00:00.000Z"]),
    st.sampled_from(["2026-11-24T24:00:00.000Z", "2026-12-31T23:59:60.000Z", "2026-00-10T00:00:00.000Z"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)
NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 1.0, -0.0, 0.5, 1e3, 1e15, 1e300, 2**53 - 1, 2**53, 2**63, float(2**53), 1.0000001]),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
)
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


@pytest.mark.parametrize("spec", EVENTS.values(), ids=lambda spec: spec.name)
def test_model_and_schema_judge_alike(spec: EventSpec) -> None:
    """The committed schema in a stock validator, the model over text and the model over values agree."""
    schema = json.loads((REPOSITORY / schema_path(spec)).read_bytes())
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)

    @SETTINGS
    @given(changed(spec))
    def judge(document: Any) -> None:
        by_schema = validator.is_valid(document)

        assert (
            _model_takes(spec, document, text=True),
            _model_takes(spec, document, text=False),
        ) == (by_schema, by_schema)

    judge()
