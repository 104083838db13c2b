"""By what right a record is sent: a token from an agency's identity provider, or one minted here for development.

| the sender has | the record carries | it is bound by |
|---|---|---|
| a token | it | what the token says: `request_hash`, or nothing |
| a token that names a key (`cnf.jkt`), and that key | it, and a proof by the key over this very record | proof |
| an issuer's key (development) | a token minted for this value (`request_hash`) | claim |
| both keys (development) | a token that names the proof key, and a proof | proof |

A `jti` is derived from what it is for and the instant: whoever makes it again for the same value in the same millisecond
names the same use, which Flux takes for a redelivery. No token is ever logged or shown by what stands here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from flux_client.development import AUDIENCE, DevelopmentAgency
from flux_client.keys import TOKEN_LIFE_S, SigningKey, TokenClaims, mint_proof, mint_token
from flux_common.auth.compact import decode_base64url
from flux_common.auth.record import FLUX_PROOF
from flux_common.contracts.envelope import Headers
from flux_common.kernel.clock import millis
from flux_common.kernel.ids import derived_id, sha256_hex

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """A development key, and what the tokens made with it say; without `iss`, the development issuer of the agency."""

    key: SigningKey
    iss: str | None = None
    sub: str = "flux-client"
    role: str = "operator"
    aud: str = AUDIENCE
    life_s: int = TOKEN_LIFE_S

    def token(self, agency: str, at: datetime, value: bytes | None = None, proof_key: SigningKey | None = None) -> str:
        """Return a token issued `at`, bound to `value` where there is one, and confined to `proof_key` likewise."""
        named: list[str | int | None] = ["token", agency, self.role, self.sub, sha256_hex(value or b""), millis(at)]
        claims = TokenClaims(
            iss=self.iss or DevelopmentAgency(agency, agency).iss,
            sub=self.sub,
            aud=self.aud,
            agency=agency,
            role=self.role,
            jti=str(derived_id(named)),
            issued_at=at,
            life_s=self.life_s,
            request_value=value,
            proof_key=proof_key,
        )
        return mint_token(self.key, claims)


@dataclass(frozen=True, slots=True)
class Record:
    """What a right is shown for: the record's topic by its catalogue name, its key and its exact value."""

    agency: str
    topic: str
    key: str
    value: bytes


class Right:
    """Gives each record the headers that show by what right it is sent.

    Raises ValueError for none or both of `token` and `key`, a token that is no compact JWS, and a `proof_key` that is not
    the one the token names.
    """

    def __init__(self, token: str | None, key: IssuerKey | None, proof_key: SigningKey | None) -> None:
        if (token is None) == (key is None):
            raise ValueError("a producer needs either a token or a key")
        if token is not None:
            _check_confinement(token, proof_key)
        self._token = token
        self._key = key
        self._proof_key = proof_key

    def headers(self, record: Record, at: datetime) -> Headers:
        """Return the headers of a record that is sent `at`."""
        token = self._token or self._minted(record, at)
        if self._proof_key is None:
            return authorization(token)
        return [*authorization(token), (FLUX_PROOF, _proof(self._proof_key, token, record, at).encode())]

    def _minted(self, record: Record, at: datetime) -> str:
        assert self._key is not None
        value = record.value if self._proof_key is None else None
        return self._key.token(record.agency, at, value, self._proof_key)


def _proof(key: SigningKey, token: str, record: Record, at: datetime) -> str:
    digests = [sha256_hex(token.encode()), sha256_hex(record.value)]
    jti = str(derived_id(["proof", key.kid, record.topic, record.key, *digests, millis(at)]))
    return mint_proof(key, token, topic=record.topic, record_key=record.key, value=record.value, jti=jti, issued_at=at)


def _check_confinement(token: str, proof_key: SigningKey | None) -> None:
    """Tell a mistake here that Flux would answer with a refusal; whether the token is genuine, only Flux can tell."""
    authorization(token)
    confined = key_named_in(token)
    if proof_key is not None and confined != proof_key.kid:
        raise ValueError("the token does not name the proof key: ask for one whose cnf.jkt is " + proof_key.kid)
    if proof_key is None and confined is not None:
        raise ValueError("the token is confined to a key (cnf.jkt), so it needs that proof key beside it")


def key_named_in(token: str) -> str | None:
    """Return the thumbprint of the key that a token is confined to, as it says itself; None where it names none."""
    try:
        payload = json.loads(decode_base64url(token.split(".")[1].encode()))
        confirmation = payload.get("cnf")
    except (ValueError, AttributeError, RecursionError):
        return None
    named = confirmation.get("jkt") if isinstance(confirmation, dict) else None
    return named if isinstance(named, str) else None


def authorization(token: str) -> Headers:
    """Return the header that carries `token`; raise ValueError (which does not show it) if it is no compact JWS."""
    if not _TOKEN.fullmatch(token):
        raise ValueError("the token is not three base64url parts joined by dots")
    return [("authorization", f"Bearer {token}".encode())]
