"""How the models are told to pydantic and to JSON Schema so that both judge alike, in whatever language they are read.

Three places need a word more than pydantic's own. JSON Schema counts `1.0` as an integer, a strict pydantic integer
does not. Python's `$` also matches before a last line feed, Rust's and ECMAScript's do not: every string with a
pattern refuses line feeds in a second keyword. And a map's names must be *all* of their pattern.
Source: JSON Schema 2020-12 core and validation; ECMA-262 (patterns, without flags).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

_NO_LINE_FEED = {"pattern": "\\n"}


@dataclass(frozen=True, slots=True)
class Whole:
    """The whole numbers from `minimum` to `maximum`, written as an integer or, as JSON Schema has it, as `1.0`."""

    minimum: int
    maximum: int

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return a schema that takes an integer, or else a float without a fraction; never a bool or a text."""
        exact = core_schema.int_schema(strict=True, ge=self.minimum, le=self.maximum)
        whole = core_schema.no_info_plain_validator_function(_without_fraction)
        float_first = core_schema.chain_schema([core_schema.float_schema(strict=True), whole, exact])
        return core_schema.union_schema(
            [exact, float_first], mode="left_to_right", serialization=core_schema.simple_ser_schema("int")
        )

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the range, or the one number it holds."""
        if self.minimum == self.maximum:
            return {"const": self.minimum}
        return {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}


def _without_fraction(value: float) -> int:
    if not value.is_integer():
        raise ValueError("the number has a fraction")
    return int(value)


class ContractSchema(GenerateJsonSchema):
    """The generator of all contract schemas."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Leave out the titles that only repeat a field's name."""
        return False

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        """Add the refusal of line feeds to whatever has a pattern: none of ours has one."""
        made = super().str_schema(schema)
        return made | {"not": _NO_LINE_FEED} if "pattern" in made else made

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Say that every name is of its pattern, and that every value is of its schema."""
        made = super().dict_schema(schema)
        for pattern, value in made.pop("patternProperties", {}).items():
            made |= {"propertyNames": {"pattern": pattern, "not": _NO_LINE_FEED}, "additionalProperties": value}
        return made
