"""One public key from its JSON form, or the reason why it is refused.

Used for the issuers' key sets and for the key inside a `flux-proof`. The members are read here and not by PyJWT, which
takes padded or signed spellings and weak keys. Source: RFC 7517, RFC 7518 §6, RFC 8037, RFC 7638 (thumbprint).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from flux_common.auth.compact import decode_base64url, encode_base64url
from flux_common.auth.weak_keys import RSA_BITS_MAX, ed25519_weakness, rsa_weakness

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | Ed25519PublicKey

KEY_TYPES: Final[Mapping[str, str]] = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
ALGORITHMS: Final = frozenset(KEY_TYPES)

_SECRET_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})
_THUMBPRINT_MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "RSA": ("e", "kty", "n"),
    "EC": ("crv", "kty", "x", "y"),
    "OKP": ("crv", "kty", "x"),
}


class KeyRefused(ValueError):
    """The key may not verify anything; the message says why and holds nothing of the key."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key, the one algorithm it verifies, and its RFC 7638 thumbprint (base64url)."""

    algorithm: str
    public_key: PublicKey
    thumbprint: str


def read_key(jwk: Mapping[str, Any], algorithm: object) -> VerificationKey:
    """Return the verification key that `jwk` is for `algorithm`; raise `KeyRefused` if it is none."""
    if not jwk.keys().isdisjoint(_SECRET_MEMBERS) or jwk.get("kty") == "oct":
        raise KeyRefused("a symmetric or private key has no place here")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise KeyRefused(f"alg is missing or none of {', '.join(sorted(ALGORITHMS))}")
    if "use" in jwk and jwk["use"] != "sig":
        raise KeyRefused("use is not sig")
    if "key_ops" in jwk and jwk["key_ops"] != ["verify"]:
        raise KeyRefused("key_ops is not [verify]")
    kty = KEY_TYPES[algorithm]
    if jwk.get("kty") != kty:
        raise KeyRefused(f"kty is not {kty}, which {algorithm} needs")
    return VerificationKey(algorithm, _READERS[kty](jwk), thumbprint(jwk))


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the RFC 7638 SHA-256 thumbprint of a key whose members have been read, as base64url."""
    members = {name: jwk[name] for name in _THUMBPRINT_MEMBERS[jwk["kty"]]}
    canonical = json.dumps(members, separators=(",", ":"), sort_keys=True)
    return encode_base64url(hashlib.sha256(canonical.encode()).digest())


def _read_rsa(jwk: Mapping[str, Any]) -> PublicKey:
    modulus, exponent = _unsigned(jwk, "n"), _unsigned(jwk, "e")
    weakness = rsa_weakness(modulus, exponent)
    if weakness is not None:
        raise KeyRefused(weakness)
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _read_p256(jwk: Mapping[str, Any]) -> PublicKey:
    _check_curve(jwk, "P-256")
    x, y = (int.from_bytes(_octets(jwk, name, 32)) for name in ("x", "y"))
    try:
        return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError:
        raise KeyRefused("the point is not on P-256") from None


def _read_ed25519(jwk: Mapping[str, Any]) -> PublicKey:
    _check_curve(jwk, "Ed25519")
    encoded = _octets(jwk, "x", 32)
    weakness = ed25519_weakness(encoded)
    if weakness is not None:
        raise KeyRefused(weakness)
    return Ed25519PublicKey.from_public_bytes(encoded)


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], PublicKey]]] = {
    "RSA": _read_rsa,
    "EC": _read_p256,
    "OKP": _read_ed25519,
}


def _check_curve(jwk: Mapping[str, Any], curve: str) -> None:
    if jwk.get("crv") != curve:
        raise KeyRefused(f"crv is not {curve}")


def _unsigned(jwk: Mapping[str, Any], name: str) -> int:
    data = _octets(jwk, name)
    if data[0] == 0:
        raise KeyRefused(f"{name} has leading zeros")
    return int.from_bytes(data)


def _octets(jwk: Mapping[str, Any], name: str, length: int | None = None) -> bytes:
    text = jwk.get(name)
    if not isinstance(text, str) or not text.isascii() or not 0 < len(text) <= RSA_BITS_MAX // 4:
        raise KeyRefused(f"{name} is missing, not a text or too long")
    try:
        data = decode_base64url(text.encode())
    except ValueError:
        raise KeyRefused(f"{name} is not canonical base64url") from None
    if not data or (length is not None and len(data) != length):
        raise KeyRefused(f"{name} is not {length or 'at least 1'} bytes long")
    return data
