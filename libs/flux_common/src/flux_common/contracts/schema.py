"""JSON Schemas made from the models, and the compiled validators that read them.

The model is the source. What is published under `schemas/` is written by `export.py` from `schema_of`, and a test
proves the files equal to it. Validators assert `format` and resolve nothing but references inside their own document.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, cast

from flux_common.contracts.catalogue import EventSpec

if TYPE_CHECKING:  # importing it takes a second, and only refused requests need it (`intake.prepare`)
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
VIOLATIONS_MAX: Final = 32
_NAME_MAX: Final = 63
_NAME_CHARACTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


def schema_id(spec: EventSpec) -> str:
    """Return the `$id` of an event's schema, which is also the event's `ce_dataschema`."""
    return f"flux:schemas/events/{spec.name}/v1.schema.json"


def schema_of(spec: EventSpec) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of an event's body."""
    return {"$schema": DIALECT, "$id": schema_id(spec)} | spec.model.model_json_schema()


def compiled(schema: dict[str, Any]) -> Draft202012Validator:
    """Return a validator of `schema` that asserts formats and never fetches anything.

    Raises:
        jsonschema.SchemaError: `schema` is no JSON Schema of this dialect.
        ValueError: `schema` refers to something outside itself.
    """
    from jsonschema import Draft202012Validator
    from referencing import Registry

    Draft202012Validator.check_schema(schema)
    for reference in _references(schema):
        if not reference.startswith("#"):
            raise ValueError("A contract schema refers to nothing outside itself")
    return Draft202012Validator(schema, registry=Registry(), format_checker=Draft202012Validator.FORMAT_CHECKER)


@cache
def validator_of(spec: EventSpec) -> Draft202012Validator:
    """Return the validator of an event's body, compiled once."""
    return compiled(schema_of(spec))


def violations(validator: Draft202012Validator, document: Any) -> tuple[tuple[str, str], ...]:
    """Return what `document` breaks as (JSON pointer, keyword), at most `VIOLATIONS_MAX`; empty if it is valid.

    The pointer of `required` names the missing member. A pointer ends before a name that is not of our own grammar:
    names are a stranger's text too.
    """
    found = (place for error in validator.iter_errors(document) for place in _places(error))
    return tuple(dict.fromkeys(islice(found, VIOLATIONS_MAX)))


def _places(error: ValidationError) -> Iterator[tuple[str, str]]:
    if error.validator == "required":
        missing = [name for name in cast("list[str]", error.validator_value) if name not in cast("Any", error.instance)]
        yield from ((_pointer([*error.absolute_path, name]), "required") for name in missing)
    elif error.validator == "anyOf":
        yield from _places_of_nearest(error)
    elif error.validator != "not" or isinstance(error.instance, str):
        yield _pointer(list(error.absolute_path)), _keyword(error)


def _keyword(error: ValidationError) -> str:
    """Return the keyword that says most: `not` is only ever a pattern's second half (dialect.py)."""
    if "propertyNames" in error.absolute_schema_path:
        return "propertyNames"
    return "pattern" if error.validator == "not" else str(error.validator)


def _places_of_nearest(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Yield what breaks the alternative whose type fits; where none fits, the type is what is broken."""
    alternatives: dict[Any, list[ValidationError]] = {}
    for inner in error.context or ():
        alternatives.setdefault(inner.relative_schema_path[0], []).append(inner)
    for errors in alternatives.values():
        if not any(inner.validator == "type" and not inner.relative_path for inner in errors):
            for inner in errors:
                yield from _places(inner)
            return
    yield _pointer(list(error.absolute_path)), "type"


def _pointer(path: list[str | int]) -> str:
    """Return the JSON pointer (RFC 6901) of `path`; names of our grammar need no escapes."""
    pointer = ""
    for part in path:
        if isinstance(part, str) and (len(part) > _NAME_MAX or not _NAME_CHARACTERS.issuperset(part)):
            break
        pointer += f"/{part}"
    return pointer


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for name, value in schema.items():
            if name in {"$ref", "$dynamicRef"} and isinstance(value, str):
                yield value
            yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)
