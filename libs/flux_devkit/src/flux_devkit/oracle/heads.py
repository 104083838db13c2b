"""Signed tree heads as text: read, and held against the audit service's public key.

A head is `origin \\n size \\n base64(root) \\n` in a signed note; the key's name is the origin, so one key has as many
names as there are logs (C2SP tlog-checkpoint, signed-note).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from flux_client.verifier import VerificationFailed, open_note

PublicKey = Ed25519PublicKey | EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class ReadHead:
    """What a signed note states, nothing verified."""

    origin: str
    size: int
    root: bytes
    note: str


def read_head(note: str) -> ReadHead | None:
    """Return what a head says; None if it is none."""
    lines = note.split("\n")
    try:
        return ReadHead(lines[0], int(lines[1]), base64.b64decode(lines[2], validate=True), note)
    except (IndexError, ValueError, binascii.Error):
        return None


def signature_fault(head: ReadHead, keys: Sequence[PublicKey]) -> str | None:
    """Return why none of the keys vouches for a head; None where one does, or where no key is known."""
    if not keys:
        return None
    try:
        open_note(head.note.encode(), verifier_keys(head.origin, keys))
    except VerificationFailed as refused:
        return str(refused)
    return None


def verifier_keys(origin: str, keys: Sequence[PublicKey]) -> list[str]:
    """Return the keys as `name+hex(key id)+base64(algorithm ‖ public key)`, named after a log's origin."""
    return [_verifier_key(origin, key) for key in keys]


def _verifier_key(origin: str, key: PublicKey) -> str:
    if isinstance(key, Ed25519PublicKey):
        data = b"\x01" + key.public_bytes_raw()
        named = origin.encode() + b"\n" + data
    else:
        named = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        data = b"\x02" + named
    return f"{origin}+{sha256(named).digest()[:4].hex()}+{base64.b64encode(data).decode()}"
