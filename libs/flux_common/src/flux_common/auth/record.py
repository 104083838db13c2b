"""The record that a token came with, as far as verification needs it. Every header of it is hostile."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from flux_common.auth.compact import TOKEN_BYTES_MAX
from flux_common.auth.refusal import TokenRefused
from flux_common.kernel.codes import Code
from flux_common.kernel.positions import Received

AUTHORIZATION: Final = "authorization"
FLUX_PROOF: Final = "flux-proof"
_SCHEME: Final = b"bearer "


@dataclass(frozen=True, slots=True)
class RecordContext:
    """Where and when a record arrived, and what it is.

    `agency_id` is the agency that the topic belongs to, `payload_agency` the one that the value names, if it does.
    `appended_at` is LogAppendTime, or None where the broker does not stamp it. `value_sha256` are the 32 bytes of the
    SHA-256 of the exact record value.
    """

    topic: str
    key: bytes | None
    value_sha256: bytes
    appended_at: datetime | None
    agency_id: str
    payload_agency: str | None = None
    is_command: bool = False
    proof: bytes | None = None


def context_of(
    received: Received, agency_id: str, *, is_command: bool = False, payload_agency: str | None = None
) -> RecordContext:
    """Return the context of a record as received; raise `TokenRefused` for a repeated, empty or oversized proof."""
    return RecordContext(
        topic=received.position.tp.topic,
        key=received.key,
        value_sha256=hashlib.sha256(received.value or b"").digest(),
        appended_at=received.appended_at,
        agency_id=agency_id,
        payload_agency=payload_agency,
        is_command=is_command,
        proof=_only(received, FLUX_PROOF, TOKEN_BYTES_MAX),
    )


def authorization_of(received: Received) -> bytes:
    """Return the record's one `authorization` header; raise `TokenRefused` where it is missing or not of its form."""
    value = _only(received, AUTHORIZATION, len(_SCHEME) + TOKEN_BYTES_MAX)
    if value is None:
        raise TokenRefused(Code.TOKEN_MISSING)
    return value


def bearer_token(authorization: bytes) -> bytes:
    """Return the token of an `authorization` header value; the scheme is compared without case (RFC 9110 §11.1)."""
    if authorization[: len(_SCHEME)].lower() != _SCHEME:
        raise TokenRefused(Code.TOKEN_MISSING)
    return authorization[len(_SCHEME) :]


def _only(received: Received, name: str, bytes_max: int) -> bytes | None:
    count = received.count(name)
    if count == 0:
        return None
    value = received.header(name)
    if count > 1 or not value or len(value) > bytes_max:
        raise TokenRefused(Code.HEADER_INVALID)
    return value
