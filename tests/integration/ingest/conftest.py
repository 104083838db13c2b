"""Ingest's log-in, a registry with real keys, and a producer's hand that may send whatever it likes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from flux_client.development import AUDIENCE, DevelopmentAgency, write_development_registry
from flux_client.keys import TokenClaims, load_key, mint_token, private_key_path
from flux_common.postgres.database import Database
from flux_common.settings import PostgresSettings
from flux_devkit.plugin import Database as TestDatabase

AGENCIES = (
    DevelopmentAgency("nasa", "NASA", reuse_unbound_tokens=False),
    DevelopmentAgency("loc", "Library", algorithm="EdDSA", reuse_unbound_tokens=False),
)
TYPES = {"run": b"flux.run.requested.v1", "command": b"flux.run.command-requested.v1"}
_numbers = count(1)


@dataclass(frozen=True)
class Hand:
    """Makes values, tokens and headers as the agency `agency_id` would, or as somebody who pretends to be it."""

    keys: Path
    agency_id: str = "nasa"

    def body(self, request_id: str = "r-1", **changes: Any) -> bytes:
        """Return a good request's value, with changes."""
        good = {
            "request_id": request_id,
            "source": {"uri": "memory:///in/"},
            "content_type": "text",
            "use_case": "research",
            "destination": {"uri": "memory:///out/"},
        }
        return json.dumps(good | changes).encode()

    def command(self, command_id: str = "c-1", request_id: str = "r-1", **changes: Any) -> bytes:
        """Return a good command's value, with changes."""
        good = {"request_id": request_id, "command_id": command_id, "command": "cancel", "reason": "enough"}
        return json.dumps(good | changes).encode()

    def token(self, *, signer: str | None = None, **changes: Any) -> bytes:
        """Return a token of the agency's issuer that is valid now; `signer` is the agency whose key signs."""
        good = TokenClaims(
            iss=f"https://issuer.{self.agency_id}.example",
            sub="producer-1",
            aud=AUDIENCE,
            agency=self.agency_id,
            role="operator",
            jti=f"jti-{next(_numbers)}",
            issued_at=datetime.now(UTC),
        )
        key = load_key(private_key_path(self.keys, signer or self.agency_id))
        return mint_token(key, replace(good, **changes)).encode()

    def headers(
        self, token: bytes | None = None, kind: str = "run", **changes: bytes
    ) -> list[tuple[str, bytes | None]]:
        """Return good headers with a token of its own, with changes; an empty value takes the header away."""
        good = {
            "ce_specversion": b"1.0",
            "ce_id": b"e-1",
            "ce_source": b"producer",
            "ce_type": TYPES[kind],
            "authorization": b"Bearer " + (self.token() if token is None else token),
        }
        return [(name, value) for name, value in (good | changes).items() if value != b""]


@pytest.fixture
def hand(tmp_path: Path) -> Hand:
    """NASA's hand, and the registry written beside its keys."""
    keys = tmp_path / "keys"
    write_development_registry(keys, AGENCIES)
    return Hand(keys)


@pytest.fixture
async def ingest_database(settings_for: Callable[[str], PostgresSettings]) -> AsyncIterator[Database]:
    """The ingest service's login."""
    opened = await Database.open(settings_for("flux_ingest"), "test")
    yield opened
    await opened.close()


@pytest.fixture
async def postgres_admin(database: TestDatabase) -> Callable[[str], Awaitable[None]]:
    """Runs a statement as the superuser: what only a restored backup or an operator could do."""

    async def run(sql: str) -> None:
        connection = await asyncpg.connect(database.dsn)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    return run
