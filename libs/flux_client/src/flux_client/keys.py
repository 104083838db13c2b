"""Signing keys and tokens for development: what an agency's identity provider does in production.

A private key is made once, written with mode 0600 and never replaced; the JWKS beside it is derived from it. The folder
gets a `.gitignore` of its own, so that no key is ever committed, wherever the folder lies. Nothing here reads a clock or
draws an id: `issued_at` and `jti` are the caller's. Source: RFC 7515, RFC 7517, RFC 7519, RFC 9449.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flux_common.auth.binding import PROOF_AUDIENCE, PROOF_TYPE
from flux_common.auth.compact import encode_base64url
from flux_common.auth.jwk import thumbprint

DevelopmentAlgorithm = Literal["ES256", "EdDSA"]
PrivateKey = ec.EllipticCurvePrivateKey | Ed25519PrivateKey
TOKEN_LIFE_S: Final = 600


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, its algorithm, and its `kid`: the RFC 7638 thumbprint of the public half."""

    algorithm: DevelopmentAlgorithm
    private_key: PrivateKey
    kid: str

    def public_jwk(self) -> dict[str, str]:
        """Return the public half as a member of a JWKS."""
        return {**_public_members(self.private_key), "alg": self.algorithm, "kid": self.kid, "use": "sig"}


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """What a token says. `life_s` is in seconds; `request_value` binds it to these bytes, `proof_key` to that key."""

    iss: str
    sub: str
    aud: str
    agency: str
    role: str
    jti: str
    issued_at: datetime
    life_s: int = TOKEN_LIFE_S
    request_value: bytes | None = None
    proof_key: SigningKey | None = None


def generate_key(algorithm: DevelopmentAlgorithm = "ES256") -> SigningKey:
    """Return a new key pair, in memory only."""
    return _signing_key(
        ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else Ed25519PrivateKey.generate()
    )


def mint_token(key: SigningKey, claims: TokenClaims) -> str:
    """Return a token that `key` signs, for the header `authorization: Bearer <token>`."""
    issued_s = int(claims.issued_at.timestamp())
    payload: dict[str, Any] = {
        "iss": claims.iss,
        "sub": claims.sub,
        "aud": claims.aud,
        "iat": issued_s,
        "exp": issued_s + claims.life_s,
        "jti": claims.jti,
        "agency": claims.agency,
        "role": claims.role,
    }
    if claims.request_value is not None:
        payload["request_hash"] = _digest(claims.request_value)
    if claims.proof_key is not None:
        payload["cnf"] = {"jkt": claims.proof_key.kid}
    return jwt.encode(payload, key.private_key, algorithm=key.algorithm, headers={"kid": key.kid})


def mint_proof(
    key: SigningKey, token: str, *, topic: str, record_key: str, value: bytes, jti: str, issued_at: datetime
) -> str:
    """Return the `flux-proof` header that binds `token`, confined to `key`, to one record on `topic`."""
    payload = {
        "jti": jti,
        "iat": int(issued_at.timestamp()),
        "ath": _digest(token.encode()),
        "rqh": _digest(value),
        "rqk": record_key,
        "aud": PROOF_AUDIENCE + topic,
    }
    headers = {"typ": PROOF_TYPE, "jwk": _public_members(key.private_key)}
    return jwt.encode(payload, key.private_key, algorithm=key.algorithm, headers=headers)


def ensure_key(folder: Path, name: str, algorithm: DevelopmentAlgorithm = "ES256") -> SigningKey:
    """Return the key `name` of `folder`, made now if there is none; an existing key is kept, whatever its algorithm.

    Writes `<name>.key.pem` (mode 0600) once and `<name>.jwks.json` whenever it is not what the key says.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(folder / ".gitignore", b"*\n")
    path = private_key_path(folder, name)
    if not path.exists():
        _write_once(path, _pem(generate_key(algorithm).private_key))
    key = load_key(path)
    jwks = json.dumps({"keys": [key.public_jwk()]}, indent=2, sort_keys=True) + "\n"
    write_whole(jwks_path(folder, name), jwks.encode())
    return key


def create_key(path: Path, algorithm: DevelopmentAlgorithm = "ES256") -> SigningKey:
    """Write a new private key to `path` (mode 0600) and return it; raises FileExistsError where something is already."""
    key = generate_key(algorithm)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(_pem(key.private_key))
    return key


def load_key(path: Path) -> SigningKey:
    """Return the key in a PEM file; raise `OSError` or `ValueError` where it cannot be read or is of another kind."""
    private_key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(private_key, PrivateKey):
        raise ValueError(f"{path} holds neither a P-256 nor an Ed25519 key")
    return _signing_key(private_key)


def private_key_path(folder: Path, name: str) -> Path:
    """Return where the private key `name` lies."""
    return folder / f"{name}.key.pem"


def jwks_path(folder: Path, name: str) -> Path:
    """Return where the JWKS of the key `name` lies."""
    return folder / f"{name}.jwks.json"


def write_whole(path: Path, data: bytes) -> None:
    """Make `path` hold `data`, in one step; a file that already does is not touched, so its time does not change."""
    if path.exists() and path.read_bytes() == data:
        return
    temporary = _temporary(path.parent, data)
    temporary.chmod(0o644)
    temporary.replace(path)


def _write_once(path: Path, data: bytes) -> None:
    """Write `data` with mode 0600, unless somebody was first: then theirs is the key."""
    temporary = _temporary(path.parent, data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    finally:
        temporary.unlink()


def _temporary(folder: Path, data: bytes) -> Path:
    handle, name = tempfile.mkstemp(dir=folder, prefix=".")  # mode 0600
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    return Path(name)


def _signing_key(private_key: PrivateKey) -> SigningKey:
    algorithm: DevelopmentAlgorithm = "ES256" if isinstance(private_key, ec.EllipticCurvePrivateKey) else "EdDSA"
    return SigningKey(algorithm, private_key, thumbprint(_public_members(private_key)))


def _public_members(private_key: PrivateKey) -> dict[str, str]:
    if isinstance(private_key, ec.EllipticCurvePrivateKey):
        if not isinstance(private_key.curve, ec.SECP256R1):
            raise ValueError("only P-256 keys sign ES256")
        numbers = private_key.public_key().public_numbers()
        coordinates = {name: encode_base64url(n.to_bytes(32)) for name, n in (("x", numbers.x), ("y", numbers.y))}
        return {"kty": "EC", "crv": "P-256", **coordinates}
    return {"kty": "OKP", "crv": "Ed25519", "x": encode_base64url(private_key.public_key().public_bytes_raw())}


def _pem(private_key: PrivateKey) -> bytes:
    return private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _digest(data: bytes) -> str:
    return encode_base64url(hashlib.sha256(data).digest())
