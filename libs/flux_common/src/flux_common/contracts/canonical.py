"""Canonical JSON (RFC 8785, JCS): the bytes that are hashed, and the check that bytes are canonical."""

from __future__ import annotations

import json
from typing import Any

import rfc8785

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import ValidationFailed
from flux_common.kernel.ids import sha256_hex


def encode(value: Any) -> bytes:
    """Return the canonical bytes of a JSON value.

    Raises:
        ValidationFailed: the value has no canonical form (a float that is not finite, an integer beyond 2^53).
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, RecursionError) as problem:
        raise ValidationFailed(Code.JSON_INVALID, "The value has no canonical JSON form") from problem


def digest(value: Any) -> str:
    """Return the SHA-256 (hexadecimal) of the canonical bytes of a JSON value."""
    return sha256_hex(encode(value))


def decode_exact(data: bytes) -> Any:
    """Return the value of `data`, which must be the canonical bytes of that value.

    Raises:
        ValidationFailed: `data` is not JSON, or not equal to its own canonical encoding.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as problem:
        raise ValidationFailed(Code.JSON_INVALID, "The bytes are not JSON") from problem
    if encode(value) != data:
        raise ValidationFailed(Code.RECORD_INVALID, "The bytes are not canonical JSON (RFC 8785)")
    return value
