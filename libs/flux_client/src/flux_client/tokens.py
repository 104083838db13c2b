"""By what right a record is sent: a token from an agency's identity provider, or one minted here for development.

A minted token is bound to its record (`request_hash`), so it is good for that value and nothing else. Its `jti` is
derived from agency, value and instant: whoever mints again for the same value in the same millisecond names the same
use, which Flux takes for a redelivery. No token is ever logged or shown by what stands here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from flux_client.development import AUDIENCE, DevelopmentAgency
from flux_client.keys import TOKEN_LIFE_S, SigningKey, TokenClaims, mint_token
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

    def token(self, agency: str, at: datetime, value: bytes | None = None) -> str:
        """Return a token issued `at`, bound to `value` where there is one."""
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
        )
        return mint_token(self.key, claims)


def authorization(token: str) -> Headers:
    """Return the header that carries `token`; raise ValueError (which does not show it) if it is no compact JWS."""
    if not _TOKEN.fullmatch(token):
        raise ValueError("the token is not three base64url parts joined by dots")
    return [("authorization", f"Bearer {token}".encode())]
