"""The small JSON of tokens and key sets: one object, read by the same strict reader as requests, and shallow.

Two readers of one text must never see two things: `json.loads` (and with it PyJWT) takes the last of two equal names.
Source: RFC 8259, RFC 7515 §4 (header names must be unique).
"""

from __future__ import annotations

from typing import Any

from flux_common.contracts.intake import parse
from flux_common.kernel.errors import ValidationFailed


class StrictJsonError(ValueError):
    """The text is not one strict and shallow JSON object; the message holds nothing of it."""


def parse_object(data: bytes, *, depth_max: int) -> dict[str, Any]:
    """Return the JSON object that `data` is, nested at most `depth_max` levels; raise `StrictJsonError` if it is not."""
    try:
        document = parse(data)
    except ValidationFailed as refused:
        raise StrictJsonError(refused.message) from None
    if not isinstance(document, dict):
        raise StrictJsonError("not a JSON object")
    if _is_deeper(document, depth_max):
        raise StrictJsonError(f"nested deeper than {depth_max} levels")
    return document


def _is_deeper(document: dict[str, Any], depth_max: int) -> bool:
    level: list[Any] = [document]
    for _ in range(depth_max):
        children = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
        level = [child for child in children if isinstance(child, dict | list)]
    return bool(level)
