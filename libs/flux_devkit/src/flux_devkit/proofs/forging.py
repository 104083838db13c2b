"""A producer's hand that sends whatever it likes: records, tokens and bodies that are good but for one thing.

The tokens are really signed, by the key of the agency's issuer or by another's, over exactly the bytes that are asked for:
what must be refused is then refused for that one thing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flux_client.development import AUDIENCE, DevelopmentAgency
from flux_client.keys import load_key, private_key_path
from flux_common.auth.compact import encode_base64url

Header = tuple[str, bytes | None]
RUN_TYPE: Final = b"flux.run.requested.v1"
COMMAND_TYPE: Final = b"flux.run.command-requested.v1"

# The agency that is attacked, with a brake that nothing reaches, and a neighbour whose tokens are as good as its own.
HOST: Final = DevelopmentAgency(
    "nasa", "NASA", algorithm="EdDSA", reuse_unbound_tokens=False, rejects_per_minute=1_000_000
)
NEIGHBOUR: Final = DevelopmentAgency("loc", "Library", algorithm="EdDSA", reuse_unbound_tokens=False)


@dataclass(frozen=True, slots=True)
class Forged:
    """A record to be sent; `compressed` has its batch compressed, for what is small only until it is unfolded."""

    value: bytes | None
    headers: Sequence[Header] = ()
    key: bytes | None = None
    compressed: bool = False


class Forger:
    """Makes records of an agency's topic. Each has a request id and a token of its own."""

    def __init__(self, keys: Path, agency: DevelopmentAgency = HOST, neighbour: DevelopmentAgency = NEIGHBOUR) -> None:
        self.agency, self.neighbour = agency, neighbour
        self._keys = {one.agency_id: load_key(private_key_path(keys, one.agency_id)) for one in (agency, neighbour)}
        self._numbers = count(1)
        self._made_at = int(time.time())
        self.spent_token = self.token()
        self.taken_body = self.body(request_id="opening")

    def opening(self) -> Forged:
        """Return the good record that must be accepted first: it spends `spent_token` and takes the id `opening`."""
        return self.record(self.taken_body, token=self.spent_token)

    def good(self) -> Forged:
        """Return a record that must be accepted."""
        return self.record(self.body())

    def body(self, **changes: Any) -> bytes:
        """Return a good request's value, with changes."""
        good = {
            "request_id": f"r-{next(self._numbers)}",
            "source": {"uri": "memory:///in/"},
            "content_type": "text",
            "use_case": "research",
            "destination": {"uri": "memory:///out/"},
        }
        return json.dumps(good | changes).encode()

    def command(self, **changes: Any) -> bytes:
        """Return a good command's value, with changes."""
        number = next(self._numbers)
        good = {"request_id": f"r-{number}", "command_id": f"c-{number}", "command": "cancel", "reason": "enough"}
        return json.dumps(good | changes).encode()

    def padded(self, member: str) -> bytes:
        """Return a good request's value with one more member, given as JSON text that no writer would write."""
        return self.body()[:-1] + b", " + member.encode() + b"}"

    def header(self, **changes: Any) -> str:
        """Return a token's header as JSON, with changes; None takes a name away."""
        good = {"alg": "EdDSA", "kid": self._keys[self.agency.agency_id].kid, "typ": "JWT"}
        return json.dumps({name: value for name, value in (good | changes).items() if value is not None})

    def claims(self, *, seconds: Mapping[str, float] | None = None, **changes: Any) -> str:
        """Return a token's payload as JSON, with changes; None takes a name away, `seconds` are times from now."""
        now = int(time.time())
        good = {
            "iss": self.agency.iss,
            "sub": "producer-1",
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + 600,
            "jti": f"jti-{self._made_at}-{next(self._numbers)}",
            "agency": self.agency.agency_id,
            "role": "operator",
        }
        times = {name: now + shift for name, shift in (seconds or {}).items()}
        return json.dumps({name: value for name, value in (good | changes | times).items() if value is not None})

    def token(self, header: str | None = None, claims: str | None = None, *, signer: str | None = None) -> bytes:
        """Return a token over exactly this header and these claims; `signer` is the agency whose key signs."""
        key = self._keys[signer or self.agency.agency_id].private_key
        assert isinstance(key, Ed25519PrivateKey)
        parts = (header or self.header(), claims or self.claims())
        signed = b".".join(encode_base64url(part.encode()).encode() for part in parts)
        return signed + b"." + encode_base64url(key.sign(signed)).encode()

    def neighbours_token(self, **changes: Any) -> bytes:
        """Return a token that is good at the neighbour's, with changes."""
        other = self.neighbour
        claims = self.claims(**{"iss": other.iss, "agency": other.agency_id} | changes)
        return self.token(self.header(kid=self._keys[other.agency_id].kid), claims, signer=other.agency_id)

    def record(
        self,
        value: bytes | None,
        *,
        token: bytes | None = None,
        headers: Mapping[str, bytes] | None = None,
        extra: Sequence[Header] = (),
        key: bytes | None = None,
        compressed: bool = False,
    ) -> Forged:
        """Return a record that is good but for what is given; an empty header's value takes it away."""
        good = {
            "ce_specversion": b"1.0",
            "ce_id": b"e-1",
            "ce_source": b"producer",
            "ce_type": RUN_TYPE,
            "authorization": b"Bearer " + (self.token() if token is None else token),
        }
        named: list[Header] = [(name, text) for name, text in (good | dict(headers or {})).items() if text != b""]
        return Forged(value, (*named, *extra), key, compressed)
