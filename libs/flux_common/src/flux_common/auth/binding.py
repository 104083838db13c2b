"""What ties a token to its record: a claim of the issuer's, or a proof by the bearer's own key. Step 11 in docs/trust.md.

A token that is confined to a key (`cnf.jkt`) needs a proof even where the agency allows unbound tokens: otherwise
whoever steals it would only have to leave the proof out. Likewise a proof without `cnf` proves nothing and is refused.
A proof is a JWS `typ: flux-proof+jwt` with `jwk` in its header and, in its payload: `jti`, `iat`, `ath` (SHA-256 of the
token), `rqh` (SHA-256 of the record value), `rqk` (the record key, as text) and `aud` (`kafka:<topic>`). Digests are
base64url. It is single use by (jkt, jti), and needs no age of its own: it dies with its token.
Source: RFC 9449 (DPoP), whose method and URI become Kafka's topic, key and value; RFC 7800.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from hmac import compare_digest
from typing import Any, Final

from flux_common.auth.claims import TIME_S_MAX, Claims, read_payload
from flux_common.auth.compact import Compact, encode_base64url, read_compact
from flux_common.auth.identity import Binding
from flux_common.auth.jwk import KeyRefused, VerificationKey, read_key
from flux_common.auth.record import RecordContext
from flux_common.auth.refusal import TokenRefused
from flux_common.auth.signature import verify_signature
from flux_common.kernel.codes import Code

PROOF_TYPE: Final = "flux-proof+jwt"
PROOF_AUDIENCE: Final = "kafka:"
_PROOF_HEADER: Final = frozenset({"alg", "typ", "jwk"})
_JTI: Final = re.compile(r"[\x21-\x7e]{1,256}")


def check_binding(
    claims: Claims, token: bytes, record: RecordContext, appended_s: float, leeway_s: int
) -> tuple[Binding, str]:
    """Return how the token is bound to `record`, and the digest that may be used once; raise `TokenRefused` if it is
    bound to another one.
    """
    if claims.request_hash is not None and not _same(claims.request_hash, encode_base64url(record.value_sha256)):
        raise TokenRefused(Code.BINDING_MISMATCH, claims.actor)
    if claims.jkt is not None:
        if record.proof is None:
            raise TokenRefused(Code.BINDING_REQUIRED, claims.actor)
        return Binding.PROOF, _check_proof(record.proof, claims, token, record, appended_s + leeway_s, leeway_s)
    if record.proof is not None:
        raise TokenRefused(Code.BINDING_MISMATCH, claims.actor)
    return (Binding.NONE if claims.request_hash is None else Binding.CLAIM), claims.use_sha256


def _check_proof(
    proof: bytes, claims: Claims, token: bytes, record: RecordContext, latest: float, leeway_s: int
) -> str:
    try:
        compact = read_compact(proof, names=_PROOF_HEADER, types=frozenset({PROOF_TYPE}))
        key = _proof_key(compact)
        verify_signature(compact, key)
        payload = read_payload(compact.payload)
    except (TokenRefused, KeyRefused):
        raise TokenRefused(Code.BINDING_MISMATCH, claims.actor) from None
    bound = {
        "ath": encode_base64url(hashlib.sha256(token).digest()),
        "rqh": encode_base64url(record.value_sha256),
        "rqk": _key_text(record.key),
        "aud": PROOF_AUDIENCE + record.topic,
    }
    iat, jti = payload.get("iat"), payload.get("jti")
    if (
        not _same(key.thumbprint, claims.jkt)
        or any(not _same(text, payload.get(name)) for name, text in bound.items())
        or type(iat) is not int
        or not claims.iat - leeway_s <= iat <= min(latest, TIME_S_MAX)
        or not isinstance(jti, str)
        or _JTI.fullmatch(jti) is None
    ):
        raise TokenRefused(Code.BINDING_MISMATCH, claims.actor)
    # Led by a word that no issuer's name can equal: a proof's use is never mistaken for a token's.
    return hashlib.sha256(f"proof\0{key.thumbprint}\0{jti}".encode()).hexdigest()


def _proof_key(compact: Compact) -> VerificationKey:
    jwk: Mapping[str, Any] | object = compact.header.get("jwk")
    if not isinstance(jwk, dict) or jwk.get("alg", compact.header["alg"]) != compact.header["alg"]:
        raise KeyRefused("jwk is missing or for another algorithm")
    return read_key(jwk, compact.header["alg"])


def _key_text(key: bytes | None) -> str | None:
    try:
        return None if key is None else key.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _same(expected: str | None, found: object) -> bool:
    """Return whether both are the same text; a missing one equals nothing."""
    if expected is None or not isinstance(found, str):
        return False
    return compare_digest(expected.encode("utf-8", "surrogatepass"), found.encode("utf-8", "surrogatepass"))
