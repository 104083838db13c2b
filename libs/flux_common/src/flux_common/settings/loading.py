"""Reading settings, and saying what they are.

`load` tries every section before it gives up, so that an operator sees all faults of one start at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Classification, FluxError
from flux_common.settings.production import doubtful, refused
from flux_common.settings.section import Section, SectionSet

Settings = TypeVar("Settings", bound=SectionSet)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as an operator sees it."""

    env: str
    type: str
    default: str
    description: str
    example: str | None


def load(settings_class: type[Settings]) -> Settings:
    """Read every section of `settings_class` from the environment.

    Raises FluxError SETTINGS_INVALID, whose message has one line per fault: variable, fault, next step. In production what is
    fit for development alone is a fault, too.
    """
    read: dict[str, Section] = {}
    faults: list[str] = []
    for name, section in settings_class.sections().items():
        try:
            read[name] = section()
        except ValidationError as error:
            faults += [_fault(section, detail) for detail in error.errors(include_url=False, include_input=False)]
    faults += refused(read.values(), os.environ)
    if faults:
        raise FluxError(Code.SETTINGS_INVALID, "\n".join(faults), classification=Classification.VALIDATION)
    return settings_class(**read)


def warnings_of(settings: SectionSet) -> list[str]:
    """Return what production warns of in settings that are valid."""
    return list(doubtful([getattr(settings, name) for name in type(settings).sections()]))


def explain(settings_class: type[SectionSet]) -> str:
    """Return a table of every setting: variable, type, default, description."""
    rows = [(s.env, s.type, s.default, s.description) for s in describe(settings_class)]
    rows.insert(0, ("VARIABLE", "TYPE", "DEFAULT", "MEANING"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
    )


def describe(settings_class: type[SectionSet]) -> Iterator[Setting]:
    """Yield every setting of `settings_class`, in the order of its sections."""
    for section in settings_class.sections().values():
        for name, info in section.model_fields.items():
            default = "(required)" if info.is_required() else _text(info.default)
            yield Setting(
                section.env_name(name), _type_name(info.annotation), default, info.description or "", _example(info)
            )


def _fault(section: type[Section], detail: ErrorDetails) -> str:
    """Say one fault in one line."""
    said = detail["msg"].removeprefix("Value error, ")
    if not detail["loc"]:
        return said
    name = _field_name(section, str(detail["loc"][0]))
    info = section.model_fields[name]
    env, example = section.env_name(name), _example(info)
    fault = "is not set" if detail["type"] == "missing" else f"is wrong: {said}"
    hint = f"; for example {env}={example}" if example else ""
    return f"{env} {fault}. It means: {info.description}{hint}"


def _field_name(section: type[Section], location: str) -> str:
    """Return the field that pydantic names by its alias or by its name."""
    for name, info in section.model_fields.items():
        if location in (name, info.validation_alias):
            return name
    raise KeyError(location)


def _example(info: FieldInfo) -> str | None:
    return _text(info.examples[0]) if info.examples else None


def _text(value: Any) -> str:
    return "(none)" if value is None else '""' if value == "" else str(value)


def _type_name(annotation: Any) -> str:
    """Return a type in an operator's words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return "|".join(map(str, arguments))
    if origin in (Union, UnionType):
        return "|".join(_type_name(a) for a in arguments if a is not NoneType)
    return {"str": "text", "int": "integer", "float": "number", "bool": "true|false", "Path": "path"}.get(
        annotation.__name__, str(annotation)
    )
