"""Tree heads as text that leaves the database: C2SP tlog-checkpoint inside a C2SP signed note.

Theory. A head is `origin \\n size \\n base64(root) \\n`; signed, it is followed by an empty line and signature lines
`— name base64(key id ‖ signature)`. Every agency's log has an origin of its own, and the key's name *is* the origin:
one private key serves many logs, and a head of one agency can never pass for another's. The key id of Ed25519 is the
first four bytes of `SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key)`; of ECDSA, those of the SHA-256 of the public key in
SPKI DER. Sources: c2sp.org/tlog-checkpoint, c2sp.org/signed-note.
Authority. The signer's memory is the last head it published (a Kafka topic), not the database: a database that knows
less, or another past, must be found out and never be signed (`judge_memory`).
Failure. Text that is not exactly of this form is no head: `HeadMalformed`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from flux_common.kernel.codes import Code

ROOT_BYTES: Final = 32
SIZE_MAX: Final = 2**63 - 1
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_SIGNATURE_MARK: Final = "— "


class HeadMalformed(ValueError):
    """The text is not a tree head, or not a signed note."""


class Algorithm(IntEnum):
    """The signature types of C2SP signed-note that Flux uses."""

    ED25519 = 0x01
    ECDSA = 0x02


@dataclass(frozen=True, slots=True)
class TreeHead:
    """What a log commits to: `root` (32 bytes) is the root over its first `size` leaves. Raises `HeadMalformed`."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not valid_name(self.origin):
            raise HeadMalformed("an origin is not empty and holds no space, plus or control character")
        if not 0 <= self.size <= SIZE_MAX or len(self.root) != ROOT_BYTES:
            raise HeadMalformed("a head has a size from 0 to 2^63 - 1 and a root of 32 bytes")

    @property
    def text(self) -> str:
        """Return the text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: who says to have signed, with which key (4 bytes of id), and the signature's bytes."""

    name: str
    key_id: bytes
    signature: bytes

    @property
    def line(self) -> str:
        """Return the line as it stands in a signed note, newline included."""
        return f"{_SIGNATURE_MARK}{self.name} {base64.b64encode(self.key_id + self.signature).decode()}\n"


def log_origin(prefix: str, agency_id: str) -> str:
    """Return the origin of an agency's log, `prefix/agency_id`; the prefix is a schema-less URL of the installation."""
    return f"{prefix.rstrip('/')}/{agency_id}"


def valid_name(name: str) -> bool:
    """Tell whether `name` may name a key: not empty, no Unicode space, no plus, no control character."""
    return name != "" and not any(character.isspace() or character == "+" or character < " " for character in name)


def key_id(name: str, algorithm: Algorithm, public_key: bytes) -> bytes:
    """Return the 4 bytes that name a key. `public_key`: 32 raw bytes for Ed25519, SPKI DER for ECDSA."""
    named = name.encode() + b"\n" + bytes([algorithm]) if algorithm is Algorithm.ED25519 else b""
    return hashlib.sha256(named + public_key).digest()[:4]


def verifier_key(name: str, algorithm: Algorithm, public_key: bytes) -> str:
    """Return what a verifier is given: `name+hex(key id)+base64(algorithm ‖ public key)`."""
    encoded = base64.b64encode(bytes([algorithm]) + public_key).decode()
    return f"{name}+{key_id(name, algorithm, public_key).hex()}+{encoded}"


def signed_note(text: str, signatures: Sequence[NoteSignature]) -> str:
    """Return the note: text, empty line, signature lines."""
    return text + "\n" + "".join(signature.line for signature in signatures)


def read_note(note: str) -> tuple[TreeHead, tuple[NoteSignature, ...]]:
    """Return the head and the signatures of a signed head, nothing verified. Raises `HeadMalformed`."""
    text, gap, block = note.rpartition("\n\n")
    if not gap or not block.endswith("\n"):
        raise HeadMalformed("a signed note is text, an empty line and signature lines")
    return read_text(text + "\n"), tuple(_read_signature(line) for line in block[:-1].split("\n"))


def read_text(text: str) -> TreeHead:
    """Return the head that `text` states. Flux signs no extension lines, so none are read. Raises `HeadMalformed`."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] != "" or _SIZE.fullmatch(lines[1]) is None:
        raise HeadMalformed("a head is three lines: origin, size, root")
    return TreeHead(lines[0], int(lines[1]), _decode(lines[2]))


def judge_memory(remembered: TreeHead | None, signed_size: int, own_root: bytes | None) -> Code | None:
    """Return why nothing may be signed, or None where the log extends what was published last.

    `remembered` is the last published head (None: none ever was), `signed_size` what the database says was signed, and
    `own_root` the root of our own tree at the remembered size (None: our tree is smaller).
    """
    if remembered is None:
        return None
    if remembered.size > signed_size or own_root is None:
        return Code.DATABASE_BEHIND_KAFKA
    return None if own_root == remembered.root else Code.FORK


def _read_signature(line: str) -> NoteSignature:
    name, _, encoded = line.removeprefix(_SIGNATURE_MARK).partition(" ")
    data = _decode(encoded)
    if not line.startswith(_SIGNATURE_MARK) or not valid_name(name) or len(data) < 5:
        raise HeadMalformed("a signature line is '— name base64(key id and signature)'")
    return NoteSignature(name, data[:4], data[4:])


def _decode(encoded: str) -> bytes:
    """Decode base64 (RFC 4648 §4) that is written in its one canonical way."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise HeadMalformed("not base64") from None
    if base64.b64encode(data).decode() != encoded:
        raise HeadMalformed("base64 with padding bits that are not zero")
    return data
