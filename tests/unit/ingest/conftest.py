"""An agency with a real key and a registry read from a real file, and records as a producer would send them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from flux_client.development import AUDIENCE, DevelopmentAgency, write_development_registry
from flux_client.keys import TokenClaims, load_key, mint_token, private_key_path
from flux_common.auth import Trust, VerifiedTokens, load_trust
from flux_common.kernel.positions import Received, TopicPartition
from flux_ingest.handlers.reading import Reader

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
STRICT = {"reuse_unbound_tokens": False}
AGENCIES = (
    DevelopmentAgency("nasa", "NASA", **STRICT),
    DevelopmentAgency("loc", "Library", algorithm="EdDSA", **STRICT),
    DevelopmentAgency("nara", "National Archives", binding_required=True, **STRICT),
    DevelopmentAgency("esa", "Suspended", suspended=True),
)
TYPES = {"run": "flux.run.requested.v1", "command": "flux.run.command-requested.v1"}


@dataclass
class Desk:
    """What a producer needs to send records, and what ingest needs to read them."""

    folder: Path
    trust: Trust
    now: datetime = NOW
    memory: VerifiedTokens = field(default_factory=VerifiedTokens)
    _numbers: Any = field(default_factory=lambda: count(1))

    def body(self, **changes: Any) -> dict[str, Any]:
        """Return a good run request, with changes; a value of None takes the name away."""
        good = {
            "request_id": "r-1",
            "source": {"uri": "memory:///in/"},
            "content_type": "text",
            "use_case": "research",
            "destination": {"uri": "memory:///out/"},
        }
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    def command(self, **changes: Any) -> dict[str, Any]:
        """Return a good command, with changes."""
        return {"request_id": "r-1", "command_id": "c-1", "command": "cancel", "reason": "enough"} | changes

    def token(self, agency_id: str = "nasa", *, signer: str | None = None, **changes: Any) -> str:
        """Return a token of the agency's issuer; `signer` is the agency whose key signs."""
        key = load_key(private_key_path(self.folder, signer or agency_id))
        good = TokenClaims(
            iss=f"https://issuer.{agency_id}.example",
            sub="producer-1",
            aud=AUDIENCE,
            agency=agency_id,
            role="operator",
            jti=f"jti-{next(self._numbers)}",
            issued_at=self.now,
        )
        return mint_token(key, replace(good, **changes))

    def record(
        self,
        value: dict[str, Any] | bytes | None,
        token: str | None = None,
        *,
        agency_id: str = "nasa",
        kind: str = "run",
        offset: int = 0,
        headers: dict[str, bytes] | None = None,
        extra: tuple[tuple[str, bytes | None], ...] = (),
        **changes: Any,
    ) -> Received:
        """Return a record with a token of its own; `headers` replaces headers, `extra` adds some."""
        data = json.dumps(value).encode() if isinstance(value, dict) else value
        named = {
            "ce_specversion": b"1.0",
            "ce_id": b"e-1",
            "ce_source": b"producer",
            "ce_type": TYPES[kind].encode(),
            "authorization": b"Bearer " + (token or self.token(agency_id)).encode(),
        } | (headers or {})
        plain = Received(
            position=TopicPartition(f"flux.{agency_id}.run.requests.v1", 0).at(offset),
            key=b"r-1",
            value=data,
            headers=(*((name, text) for name, text in named.items() if text != b""), *extra),
            appended_at=self.now,
        )
        return replace(plain, **changes)

    def reader(self, agency_id: str = "nasa", now: datetime | None = None) -> Reader:
        """Return a reader of the agency's topic."""
        return Reader(agency_id, self.trust, self.memory, now or self.now)


@pytest.fixture(scope="session")
def trust_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with keys and a registry."""
    folder = tmp_path_factory.mktemp("ingest-trust")
    write_development_registry(folder, AGENCIES)
    return folder


@pytest.fixture
def desk(trust_folder: Path) -> Desk:
    """A desk at which one thing can be changed."""
    return Desk(trust_folder, load_trust(trust_folder / "agencies.yaml", NOW))
