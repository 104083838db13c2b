"""The outer form of a JWS in compact serialization: three parts, a closed header. Steps 1 to 3 of docs/trust.md.

PyJWT accepts padding and duplicate header names (measured on 2.15.1), so the form is settled here, before it sees a
byte. Base64url must be canonical: two spellings of one signature would be two digests of one token.
Source: RFC 7515 §2, §4, §7.1; RFC 8725.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any, Final

from flux_common.auth.refusal import TokenRefused
from flux_common.auth.strict_json import StrictJsonError, parse_object
from flux_common.kernel.codes import Code

TOKEN_BYTES_MAX: Final = 8 * 1024
HEADER_DEPTH_MAX: Final = 4

# The payload may be empty here: that a token's payload is a JSON object is the claims' rule, not the form's.
_THREE_PARTS: Final = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)\.([A-Za-z0-9_-]+)")
KID_PATTERN: Final = r"[A-Za-z0-9._~-]{1,128}"
_KID: Final = re.compile(KID_PATTERN)


@dataclass(frozen=True, slots=True)
class Compact:
    """A JWS whose form is right and of which nothing is proven yet."""

    token: bytes
    header: dict[str, Any]
    payload: bytes


def read_compact(token: bytes, *, names: frozenset[str], types: frozenset[str]) -> Compact:
    """Return the parts of `token`, whose header has no name beside `names` and whose `typ`, if any, is one of `types`.

    `types` are lower case, as RFC 7515 §4.1.9 compares media types without case. Raises `TokenRefused`.
    """
    if len(token) > TOKEN_BYTES_MAX:
        raise TokenRefused(Code.TOKEN_MALFORMED)
    parts = _THREE_PARTS.fullmatch(token)
    if parts is None:
        raise TokenRefused(Code.TOKEN_MALFORMED)
    try:
        header, payload, _ = (decode_base64url(part) for part in parts.groups())
    except ValueError:
        raise TokenRefused(Code.TOKEN_MALFORMED) from None
    return Compact(token, _read_header(header, names, types), payload)


def _read_header(data: bytes, names: frozenset[str], types: frozenset[str]) -> dict[str, Any]:
    try:
        header = parse_object(data, depth_max=HEADER_DEPTH_MAX)
    except StrictJsonError:
        raise TokenRefused(Code.TOKEN_HEADER_REFUSED) from None
    if not header.keys() <= names or not isinstance(header.get("alg"), str):
        raise TokenRefused(Code.TOKEN_HEADER_REFUSED)
    typ = header.get("typ", "JWT")
    if not isinstance(typ, str) or typ.lower() not in types:
        raise TokenRefused(Code.TOKEN_HEADER_REFUSED)
    return header


def kid_of(header: dict[str, Any]) -> str:
    """Return the header's `kid` (step 3); raise `TokenRefused` where it is missing or not of its grammar."""
    kid = header.get("kid")
    if not isinstance(kid, str) or _KID.fullmatch(kid) is None:
        raise TokenRefused(Code.TOKEN_HEADER_REFUSED)
    return kid


def is_kid(value: object) -> bool:
    """Return whether `value` is a text of the grammar of key ids."""
    return isinstance(value, str) and _KID.fullmatch(value) is not None


def decode_base64url(text: bytes) -> bytes:
    """Return the bytes of canonical, unpadded base64url (RFC 4648 §5); raise `ValueError` for any other spelling."""
    try:
        data = base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise ValueError("not base64url") from None
    if encode_base64url(data).encode() != text:
        raise ValueError("not canonical base64url")
    return data


def encode_base64url(data: bytes) -> str:
    """Return `data` as unpadded base64url (RFC 4648 §5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
