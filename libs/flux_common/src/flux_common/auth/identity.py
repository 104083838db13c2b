"""Who asked, as far as it has been proven.

An `Actor` exists only after the signature, the claims and the agency have been verified; nothing here is ever filled
from bytes that were not. What a log or an audit fact may say of a token is what stands here: never the token, never
the `jti` itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a token's bearer is to its agency."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"


class Binding(StrEnum):
    """What ties a token to the one record it came with."""

    CLAIM = "claim"
    PROOF = "proof"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Actor:
    """A proven identity; `jti_sha256` is 64 lower-case hexadecimal digits."""

    agency_id: str
    iss: str
    sub: str
    role: Role
    kid: str
    jti_sha256: str


@dataclass(frozen=True, slots=True)
class Verified(Actor):
    """A token that passed every step but replay, which ingest decides in its own transaction.

    `exp` is in seconds since 1970. `single_use` is the digest (64 hexadecimal digits) that may stand only once per
    agency among accepted decisions, to be kept until `exp` + topic retention + leeway; None where the agency allows
    unbound tokens to be used again.
    """

    exp: int
    binding: Binding
    single_use: str | None

    @property
    def actor(self) -> Actor:
        """Return the identity alone, for facts."""
        return Actor(self.agency_id, self.iss, self.sub, self.role, self.kid, self.jti_sha256)
