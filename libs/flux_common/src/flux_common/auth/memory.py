"""Tokens already verified, so that one token over many requests costs one signature check.

What is remembered are the claims after steps 1 to 8, under (SHA-256 of the token, key generation): a change of keys or
registry forgets everything. Steps 9 to 12 run on every record. Refusals are not remembered. One event loop uses one
memory; it is not safe for threads.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from flux_common.auth.claims import Claims

ENTRIES_MAX: Final = 10_000


class VerifiedTokens:
    """A bounded memory; the entry unused for longest goes first."""

    def __init__(self, entries_max: int = ENTRIES_MAX) -> None:
        self._entries_max = entries_max
        self._generation = ""
        self._claims: OrderedDict[bytes, Claims] = OrderedDict()

    def __len__(self) -> int:
        return len(self._claims)

    def recall(self, token_sha256: bytes, generation: str, now_s: float) -> Claims | None:
        """Return the claims of a token that was verified under the same keys and has not expired, else None."""
        if generation != self._generation:
            self._claims.clear()
            self._generation = generation
        claims = self._claims.get(token_sha256)
        if claims is None:
            return None
        if claims.exp <= now_s:
            del self._claims[token_sha256]
            return None
        self._claims.move_to_end(token_sha256)
        return claims

    def remember(self, token_sha256: bytes, claims: Claims) -> None:
        """Keep `claims` under the generation last asked for."""
        self._claims[token_sha256] = claims
        self._claims.move_to_end(token_sha256)
        if len(self._claims) > self._entries_max:
            self._claims.popitem(last=False)
