"""Validators fetch nothing, assert formats, and say where a document is broken without repeating it."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import SchemaError

from flux_common.contracts.catalogue import RUN_REQUESTED
from flux_common.contracts.schema import VIOLATIONS_MAX, compiled, validator_of, violations


@pytest.mark.parametrize("reference", ["https://example.com/s.json", "other.json", "//h/s", "file:///etc/passwd"])
def test_a_reference_to_somewhere_else_is_refused(reference: str) -> None:
    """A schema that would have to be fetched does not compile."""
    with pytest.raises(ValueError, match="nothing outside itself"):
        compiled({"properties": {"a": {"anyOf": [{"$ref": reference}]}}})


def test_no_schema_compiles_that_is_none() -> None:
    """A schema is checked against its dialect."""
    with pytest.raises(SchemaError):
        compiled({"type": "text"})


@pytest.mark.parametrize(
    ("schema", "document", "expected"),
    [
        ({"format": "date-time"}, "2026-02-30T00:00:00Z", [("", "format")]),
        ({"format": "date-time"}, "2026-02-28T00:00:00Z", []),
        ({"required": ["a", "b"]}, {}, [("/a", "required"), ("/b", "required")]),
        ({"properties": {"a b": {"const": 1}}}, {"a b": 2}, [("", "const")]),
        ({"properties": {"a": {"items": {"const": 1}}}}, {"a": [1, 2]}, [("/a/1", "const")]),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, 1, [("", "type")]),
        ({"anyOf": [{"type": "string", "maxLength": 1}, {"type": "null"}]}, "ab", [("", "maxLength")]),
        ({"anyOf": [{"type": "object", "required": ["a"]}, {"type": "null"}]}, {}, [("/a", "required")]),
        ({"type": "string", "not": {"pattern": "\\n"}}, "\n", [("", "pattern")]),
        ({"type": "string", "not": {"pattern": "\\n"}}, 1, [("", "type")]),
        ({"propertyNames": {"pattern": "^a$"}}, {"b": 1}, [("", "propertyNames")]),
    ],
)
def test_a_violation(schema: dict[str, Any], document: Any, expected: list[tuple[str, str]]) -> None:
    """Pointer and keyword of each thing that is broken, in the alternative whose type fits."""
    found = violations(compiled(schema), document)

    assert sorted(found) == expected


def test_violations_are_bounded() -> None:
    """A thousand faults give a short list."""
    found = violations(compiled({"items": {"const": 1}}), list(range(2, 1000)))

    assert len(found) == VIOLATIONS_MAX


def test_a_validator_is_compiled_once() -> None:
    """The same event gets the same validator."""
    assert validator_of(RUN_REQUESTED) is validator_of(RUN_REQUESTED)
