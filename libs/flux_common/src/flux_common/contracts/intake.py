"""Reading what a stranger sent. Every byte is hostile, and whatever it is, the answer is a verdict and never a crash.

In this order (docs/trust.md): length, strict UTF-8 without a byte order mark, depth and number of tokens by a scan of
the bytes, a parse that refuses what JSON readers disagree on, a walk over every text, and the event's contract. Nothing
that is refused is shown: an error has a code, JSON pointers and schema keywords, never a value, and no error of the
reader below is chained to it, since those quote their input.

The contract is judged by the model; the JSON Schema that is made from it names what was broken. Both judge alike
(tests/contracts), but the schema's interpreter takes 200 µs a request where the model takes 5.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Final, NoReturn, cast

from pydantic import ValidationError

from flux_common.contracts.catalogue import REQUESTS, EventSpec
from flux_common.contracts.envelope import HEADER_BYTES_MAX, HEADERS_MAX
from flux_common.contracts.requests import CommandRequested, RunRequested
from flux_common.contracts.schema import validator_of, violations
from flux_common.contracts.types import REQUEST_ID_PATTERN, Event
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import ValidationFailed

EXPONENT_MAX: Final = 308
INT64_DIGITS_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class IntakeLimits:
    """How much of a record is read before it is refused for its size; an installation may set each (`FLUX_INTAKE_…`)."""

    value_bytes_max: int = 256 * 1024
    depth_max: int = 64
    tokens_max: int = 4096
    string_bytes_max: int = 64 * 1024
    name_bytes_max: int = 256
    headers_max: int = HEADERS_MAX
    header_bytes_max: int = HEADER_BYTES_MAX


STANDARD: Final = IntakeLimits()

_EXHAUSTED: Final = (RecursionError, MemoryError, OverflowError)
_EVENTS: Final = {spec.ce_type: spec for spec in REQUESTS.events}


def prepare() -> None:
    """Compile the validators now, so that the first refused request does not wait for it."""
    for spec in REQUESTS.events:
        validator_of(spec)


def read_request(ce_type: str, value: bytes | None, limits: IntakeLimits = STANDARD) -> RunRequested | CommandRequested:
    """Return the request that `value` is.

    Raises:
        ValidationFailed: `EVENT_TYPE_UNKNOWN`, or as `parse` and `judge` raise it.
    """
    return cast("RunRequested | CommandRequested", judge(request_spec(ce_type), parse(value, limits)))


def request_spec(ce_type: str) -> EventSpec:
    """Return the event of this `ce_type`.

    Raises:
        ValidationFailed: `EVENT_TYPE_UNKNOWN`: no request is called so.
    """
    if ce_type not in _EVENTS:
        raise ValidationFailed(Code.EVENT_TYPE_UNKNOWN, "The requests topic carries no such event")
    return _EVENTS[ce_type]


def parse(value: bytes | None, limits: IntakeLimits = STANDARD) -> Any:
    """Return the JSON document that `value` is, with every text in it checked.

    Raises:
        ValidationFailed: `VALUE_MISSING`, `TOO_LARGE`, `NOT_UTF8`, `JSON_TOO_DEEP` or `JSON_INVALID`.
    """
    document = decode(value, limits)
    _walk(document, limits)
    return document


def judge(spec: EventSpec, document: Any) -> Event:
    """Return `document` as an instance of `spec.model`.

    Raises:
        ValidationFailed: `SCHEMA_VIOLATION`, with the places in `violations`.
    """
    try:
        return spec.model.model_validate(document)
    except (ValidationError, *_EXHAUSTED):
        pass
    problem = ValidationFailed(Code.SCHEMA_VIOLATION, f"The value is no {spec.ce_type}")
    raise problem.with_violations(_broken(spec, document))


def readable_request_id(document: Any) -> str | None:
    """Return the request id that a document names, if it can be read, however broken the rest is."""
    named = document.get("request_id") if isinstance(document, dict) else None
    return named if isinstance(named, str) and re.fullmatch(REQUEST_ID_PATTERN, named) else None


def decode(value: bytes | None, limits: IntakeLimits = STANDARD) -> Any:
    """Return the JSON document that `value` is by RFC 8259, without the walk over its texts.

    Raises:
        ValidationFailed: as `parse`.
    """
    text = _text(value, limits)
    try:
        return _DECODER.decode(text)
    except ValueError:
        pass
    except _EXHAUSTED:
        raise ValidationFailed(Code.JSON_TOO_DEEP, "Reading the value exhausts its reader") from None
    raise ValidationFailed(Code.JSON_INVALID, "The value is not strict JSON")


def _broken(spec: EventSpec, document: Any) -> tuple[tuple[str, str], ...]:
    try:
        return violations(validator_of(spec), document)
    except _EXHAUSTED:
        return ()


def _text(value: bytes | None, limits: IntakeLimits) -> str:
    if value is None:
        raise ValidationFailed(Code.VALUE_MISSING, "The record has no value")
    if len(value) > limits.value_bytes_max:
        raise ValidationFailed(Code.TOO_LARGE, f"The value is larger than {limits.value_bytes_max} bytes")
    try:
        text = value.decode("utf-8", "strict")
    except UnicodeDecodeError:
        raise ValidationFailed(Code.NOT_UTF8, "The value is not strict UTF-8") from None
    if text.startswith("\ufeff"):
        raise ValidationFailed(Code.JSON_INVALID, "The value begins with a byte order mark")
    _scan(value, limits.depth_max, limits.tokens_max)
    return text


# Possessive, and every alternative matches at the end of the bytes too: no input makes this search go back.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\(?:.|\Z))*+(?:"|\Z)|[\[\]{}:,]|[^\s"\[\]{}:,]++', re.DOTALL)
_OPENING: Final = frozenset(b"[{")
_CLOSING: Final = frozenset(b"]}")


def _scan(value: bytes, depth_max: int, tokens_max: int) -> None:
    """Refuse what nests too deep or has too many tokens, before a parser builds anything of it."""
    if len(value) <= tokens_max and value.count(b"[") + value.count(b"{") <= depth_max:
        return  # a token has a byte at least, and a level a bracket
    depth = 0
    for count, token in enumerate(_TOKEN.finditer(value), 1):
        first = value[token.start()]
        depth += (first in _OPENING) - (first in _CLOSING)
        if depth > depth_max or count > tokens_max:
            raise ValidationFailed(Code.JSON_TOO_DEEP, f"More than {depth_max} levels or {tokens_max} tokens")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name is repeated")
    return made


def _integer(digits: str) -> int:
    if len(digits) > INT64_DIGITS_MAX or not -(2**63) <= (number := int(digits)) < 2**63:
        raise ValueError("the integer is beyond 64 bits")
    return number


def _float(digits: str) -> float:
    exponent = digits.lower().partition("e")[2].lstrip("+-").lstrip("0")
    if len(exponent) > len(str(EXPONENT_MAX)) or int(exponent or "0") > EXPONENT_MAX:
        raise ValueError("the exponent is out of range")
    if not math.isfinite(number := float(digits)):
        raise ValueError("the number is not finite")
    return number


def _constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)


def _walk(document: Any, limits: IntakeLimits) -> None:
    """Check every text of a document. Escapes can make what UTF-8 itself cannot hold."""
    waiting = [document]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            _check_text(item, limits.string_bytes_max)
        elif isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, dict):
            for name, value in item.items():
                _check_text(name, limits.name_bytes_max)
                waiting.append(value)


def _check_text(text: str, bytes_max: int) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValidationFailed(Code.JSON_INVALID, "A text holds a lone surrogate") from None
    if "\0" in text:
        raise ValidationFailed(Code.JSON_INVALID, "A text holds the character NUL")
    if size > bytes_max:
        raise ValidationFailed(Code.JSON_INVALID, f"A text or a name is longer than {bytes_max} bytes")
