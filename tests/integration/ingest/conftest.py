"""Ingest's log-in, a registry with real keys, and a producer's hand that may send whatever it likes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from flux_client.development import AUDIENCE, DevelopmentAgency, write_development_registry
from flux_client.keys import TokenClaims, load_key, mint_token, private_key_path
from flux_common.auth import Trust, load_trust
from flux_common.contracts.catalogue import AUDIT
from flux_common.kernel.clock import FixedClock
from flux_common.kernel.positions import Lane, LaneBatch, Received, TopicPartition
from flux_common.postgres.database import Database
from flux_common.postgres.lanes import PostgresLanes
from flux_common.settings import PostgresSettings
from flux_devkit.plugin import Database as TestDatabase
from flux_ingest.adapters.decisions import PostgresDecisions
from flux_ingest.domain.seals import Seals
from flux_ingest.handlers.requests import RequestsHandler
from flux_ingest.handlers.sealing import SealGate
from flux_ingest.ports import DecisionStore

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


@dataclass
class Bench:
    """Ingest's handler on one database, fed as the lane loop would feed it."""

    database: Database
    trust: Trust
    lanes: PostgresLanes = field(init=False)
    handler: RequestsHandler = field(init=False)
    taken: dict[TopicPartition, Lane] = field(default_factory=dict)
    unknown_keys: list[str] = field(default_factory=list)
    seals: Seals = field(default_factory=lambda: Seals(AUDIT.kafka_partitions))

    def __post_init__(self) -> None:
        self.lanes = PostgresLanes(self.database, "ingest")
        self.handler = RequestsHandler(
            self.lanes,
            _open_store,
            lambda: self.trust,
            FixedClock(datetime.now(UTC)),
            SealGate(self.seals, timedelta(seconds=30)),
            self.unknown_keys.append,
        )

    async def batch(
        self, *records: tuple[bytes | None, Any], kp: int = 0, agency: str = "nasa", at: datetime | None = None
    ) -> LaneBatch:
        """Return the next batch of a lane: (value, headers) each, stamped now or `at`, without a key."""
        tp = TopicPartition(f"flux.{agency}.run.requests.v1", kp)
        lane = self.taken.get(tp) or await self.lanes.take(tp, topic_id=f"id-{agency}", log_start=0, log_end=10**6)
        at = at or datetime.now(UTC)
        received = [
            Received(tp.at(lane.next_offset + n), None, value, tuple(headers), at)
            for n, (value, headers) in enumerate(records)
        ]
        end = lane.next_offset + len(records)
        self.taken[tp] = replace(lane, next_offset=end)
        return LaneBatch(lane, received, end)

    async def feed(self, *records: tuple[bytes | None, Any], kp: int = 0) -> None:
        """Apply records as one batch."""
        await self.handler.apply(await self.batch(*records, kp=kp))

    async def told(self) -> list[tuple[str, str | None, dict[str, Any]]]:
        """Return (type, key, body) of everything in the outbox, in its order."""
        return [(_type(row), row["key"], json.loads(row["value"])) for row in await self.outbox()]

    async def outbox(self) -> list[Any]:
        """Return the outbox's rows."""
        return await self.rows("SELECT * FROM outbox ORDER BY id")

    async def headers(self) -> list[dict[str, str]]:
        """Return the headers of everything in the outbox, in its order."""
        return [headers_of(row) for row in await self.outbox()]

    async def rows(self, sql: str, *args: Any) -> list[Any]:
        """Return rows as the service sees them in NASA's name."""
        async with self.database.transaction(["nasa"]) as connection:
            return list(await connection.fetch(sql, *args))

    async def ledger(self) -> list[tuple[int, str, str | None, str | None]]:
        """Return the ledger's exceptions of lane 0."""
        rows = await self.rows("SELECT * FROM ledger_exceptions WHERE kafka_partition = 0 ORDER BY first_offset")
        return [(row["first_offset"], row["class"], row["code"], row["ref"]) for row in rows]


def _open_store(advance: Any, agency_id: str) -> DecisionStore:
    return PostgresDecisions(advance.connection, agency_id)


def headers_of(row: Any) -> dict[str, str]:
    return dict(json.loads(row["headers"]))


def _type(row: Any) -> str:
    return headers_of(row)["ce_type"].removeprefix("flux.").removesuffix(".v1")


@pytest.fixture
def bench(ingest_database: Database, hand: Any) -> Bench:
    """A bench with the registry of the hand."""
    return Bench(ingest_database, load_trust(hand.keys / "agencies.yaml", datetime.now(UTC)))
