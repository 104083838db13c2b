"""The signing key of the audit service: it alone can sign tree heads, and only this file holds the key.

The key is a PKCS#8 PEM file (a mounted secret): Ed25519 by default, ECDSA over P-256 where FIPS asks for it. The key's
kind says how heads are signed; there is no other setting. Keys of any other kind are refused at start.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from flux_audit.domain.tree_head import (
    Algorithm,
    NoteSignature,
    TreeHead,
    key_id,
    log_origin,
    signed_note,
    verifier_key,
)
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Classification, FluxError


class TreeHeadSigner:
    """Signs tree heads; the key's name in each is the head's origin."""

    def __init__(self, key: Ed25519PrivateKey | EllipticCurvePrivateKey) -> None:
        self._key = key
        if isinstance(key, Ed25519PrivateKey):
            self._algorithm = Algorithm.ED25519
            self._public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        else:
            self._algorithm = Algorithm.ECDSA
            self._public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @classmethod
    def from_file(cls, path: Path) -> TreeHeadSigner:
        """Read the key from a PEM file without a passphrase. Raises `FluxError` SETTINGS_INVALID, without content."""
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise _refused(f"the signing key {path} cannot be read ({type(error).__name__})") from None
        if isinstance(key, Ed25519PrivateKey):
            return cls(key)
        if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
            return cls(key)
        raise _refused(f"the signing key {path} is neither Ed25519 nor ECDSA over P-256")

    def sign(self, head: TreeHead) -> str:
        """Return `head` as a signed note."""
        text = head.text.encode()
        if isinstance(self._key, Ed25519PrivateKey):
            signature = self._key.sign(text)
        else:
            signature = self._key.sign(text, ECDSA(hashes.SHA256()))
        named = key_id(head.origin, self._algorithm, self._public)
        return signed_note(head.text, [NoteSignature(head.origin, named, signature)])

    def verifier_key(self, origin: str) -> str:
        """Return the string by which anyone can verify the heads of `origin`: `name+key id+base64`."""
        return verifier_key(origin, self._algorithm, self._public)


def log_verifier_key(key_file: Path, prefix: str, agency_id: str) -> str:
    """Return the verifier key string of an agency's log, from the private key's file and the origins' prefix.

    Raises `FluxError` SETTINGS_INVALID where the key cannot be used.
    """
    return TreeHeadSigner.from_file(key_file).verifier_key(log_origin(prefix, agency_id))


def _refused(message: str) -> FluxError:
    return FluxError(Code.SETTINGS_INVALID, message, classification=Classification.AUDIT)
