"""Requests made from their published schema: model and schema agree at every bound, and both verdicts occur.

The schema is read as whoever builds a producer reads it. At each leaf the values are those that it allows and those at its
bounds; in every other request also those one step beyond, for a request with many leaves would hardly ever be valid else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from flux_common.contracts.catalogue import REQUESTS, EventSpec
from flux_common.contracts.export import schema_path

REPOSITORY = Path(__file__).resolve().parents[2]
CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
SETTINGS = settings(max_examples=100, deadline=None, suppress_health_check=CHECKS)
PLAIN = st.characters(codec="utf-8", exclude_characters="\0")
Made = st.SearchStrategy[Any]


def from_schema(schema: dict[str, Any], root: dict[str, Any], *, beyond: bool) -> Made:
    """Return values that a schema of our dialect allows, and, if asked for, those just `beyond`."""
    if "$ref" in schema:
        return from_schema(root["$defs"][schema["$ref"].rpartition("/")[2]], root, beyond=beyond)
    if "anyOf" in schema:
        return st.one_of([from_schema(one, root, beyond=beyond) for one in schema["anyOf"]])
    if "enum" in schema or "const" in schema:
        return st.sampled_from([*schema.get("enum", [schema.get("const")]), *(["", "VR"] if beyond else [])])
    return _OF_TYPE[schema["type"]](schema, root, beyond)


def _objects(schema: dict[str, Any], root: dict[str, Any], beyond: bool) -> Made:
    if isinstance(more := schema.get("additionalProperties"), dict):
        names = _texts(schema.get("propertyNames", {}), root, beyond)
        return st.dictionaries(names, from_schema(more, root, beyond=beyond), max_size=3)
    members = {name: from_schema(one, root, beyond=beyond) for name, one in schema["properties"].items()}
    needed = set(schema.get("required", ()))
    whole = st.fixed_dictionaries(
        {name: members[name] for name in sorted(needed)},
        optional={name: one for name, one in members.items() if name not in needed},
    )
    extra = st.builds(lambda made, extra: made | {extra: 1}, whole, st.sampled_from(["x", *sorted(members)]))
    return whole | extra if beyond else whole


def _texts(schema: dict[str, Any], _root: dict[str, Any], beyond: bool) -> Made:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 64)
    if "pattern" in schema:
        # Without a full match a line feed may follow, which is refused.
        allowed = st.from_regex(schema["pattern"], fullmatch=not beyond)
    else:
        allowed = st.text(PLAIN, min_size=least, max_size=max(least, min(most, 20)))
    if not beyond:
        return allowed
    bounds = [n for n in (least - 1, least, most, most + 1) if 0 <= n <= 3_000]
    lengths = st.sampled_from(bounds).map(lambda number: "a" * number)
    return allowed | allowed | lengths | st.text(PLAIN, max_size=8)


def _numbers(schema: dict[str, Any], _root: dict[str, Any], beyond: bool) -> Made:
    least, most = schema.get("minimum", 0), schema.get("maximum", 2**53)
    allowed = st.integers(min_value=int(least), max_value=int(most))
    edges = [least - 1, least, least + 0.0, least + 0.5, most, float(most), most + 1]
    return allowed | st.sampled_from(edges) if beyond else allowed


def _lists(schema: dict[str, Any], root: dict[str, Any], beyond: bool) -> Made:
    return st.lists(from_schema(schema["items"], root, beyond=beyond), max_size=3)


def _booleans(_schema: dict[str, Any], _root: dict[str, Any], beyond: bool) -> Made:
    return st.booleans() | st.sampled_from([0, 1, "true"]) if beyond else st.booleans()


_OF_TYPE: dict[str, Any] = {
    "object": _objects,
    "string": _texts,
    "integer": _numbers,
    "number": _numbers,
    "array": _lists,
    "boolean": _booleans,
    "null": lambda *_: st.none(),
}


@pytest.mark.parametrize("spec", REQUESTS.events, ids=lambda spec: spec.name)
def test_requests_from_the_schema_are_judged_alike(spec: EventSpec) -> None:
    """The verdict of the model, which intake asks, is that of the schema, which everybody else has."""
    schema = json.loads((REPOSITORY / schema_path(spec)).read_bytes())
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    verdicts: set[bool] = set()

    @SETTINGS
    @given(from_schema(schema, schema, beyond=False) | from_schema(schema, schema, beyond=True))
    def judge(document: Any) -> None:
        by_schema = validator.is_valid(document)
        verdicts.add(by_schema)
        try:
            spec.model.model_validate(document)
            by_model = True
        except ValidationError:
            by_model = False

        assert by_model is by_schema

    judge()
    assert verdicts == {True, False}
