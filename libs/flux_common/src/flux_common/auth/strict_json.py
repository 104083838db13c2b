"""One strict reader for the small JSON of tokens and key sets.

Two readers of one text must never see two things: duplicate names, NaN, BOMs and bytes that are not UTF-8 are refused
here, where `json.loads` (and with it PyJWT) would take the last name or guess the encoding. Depth is counted before
parsing, so that no input can exhaust the stack. Source: RFC 8259, RFC 7515 §4 (header names must be unique).
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, NoReturn

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


class StrictJsonError(ValueError):
    """The text is not one strict JSON object."""


def parse_object(data: bytes, *, depth_max: int) -> dict[str, Any]:
    """Return the JSON object that `data` is, nested at most `depth_max` levels; raise `StrictJsonError` if it is not."""
    try:
        text = data.decode("utf-8")
        _check_depth(text, depth_max)
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
    except StrictJsonError:
        raise
    except ValueError as error:
        # The original message may quote the input; its kind is enough.
        raise StrictJsonError(f"not strict JSON ({type(error).__name__})") from None
    if not isinstance(value, dict):
        raise StrictJsonError("not a JSON object")
    return value


def _check_depth(text: str, depth_max: int) -> None:
    depth = 0
    for character in _STRING.sub("", text):
        if character in "[{":
            depth += 1
            if depth > depth_max:
                raise StrictJsonError(f"nested deeper than {depth_max} levels")
        elif character in "]}":
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise StrictJsonError("a name is repeated")
    return found


def _refuse(_: str) -> NoReturn:
    raise StrictJsonError("NaN and Infinity are not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise StrictJsonError("a number is not finite")
    return number
