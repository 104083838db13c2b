"""Audit's handlers on one real database: facts as the lanes would hand them over, and what comes of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flux_audit.adapters.log import PostgresLogs
from flux_audit.adapters.signer import TreeHeadSigner
from flux_audit.domain.merkle import Frontier, append, leaf_hash
from flux_audit.domain.signing import Cadence
from flux_audit.domain.tree_head import TreeHead, log_origin, read_note
from flux_audit.handlers.facts import FactsHandler
from flux_audit.handlers.heads import HeadPublisher
from flux_audit.handlers.leftovers import Leftovers
from flux_audit.handlers.unsigned import Unsigned
from flux_audit.ports import Signer
from flux_client.verifier import Trust, verify_receipt
from flux_common.contracts.catalogue import AUDIT
from flux_common.contracts.envelope import Outgoing
from flux_common.contracts.outgoing import Emitter
from flux_common.kernel.clock import FixedClock
from flux_common.kernel.ids import derived_id, fact_partition
from flux_common.kernel.positions import Lane, LaneBatch, Received, TopicPartition
from flux_common.kernel.signals import Signal
from flux_common.postgres.database import Database
from flux_common.postgres.lanes import PostgresLanes

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PREFIX = "flux.example/audit"
USUAL = Cadence()
LANE = TopicPartition(AUDIT.name, 1)
OTHER_LANE = TopicPartition(AUDIT.name, 2)
NASAS_LANE = TopicPartition(AUDIT.name, fact_partition("nasa", AUDIT.kafka_partitions))


def event_id(number: int) -> UUID:
    """Return the id of the event that fact `number` attests."""
    return derived_id(["event", number])


def fact(number: int, agency: str = "nasa", *, receipt: bool = True, note: str = "a") -> Outgoing:
    """Return a fact as a service's outbox holds it."""
    return Emitter("ingest").fact(
        agency, "run.accepted", at=NOW, event_id=derived_id(["fact", agency, number]), subject=note.encode(),
        refs={"event_id": str(event_id(number)), "n": number}, receipt=receipt,
    )  # fmt: skip


@dataclass
class KnownHeads:
    """A memory that a test fills: what was published, without the topic that it was published on."""

    heads: dict[str, TreeHead] = field(default_factory=dict)
    refreshes: int = 0

    async def refresh(self) -> None:
        self.refreshes += 1

    def last(self, agency_id: str) -> TreeHead | None:
        return self.heads.get(agency_id)

    def agencies(self) -> list[str]:
        return list(self.heads)


class Bench:
    """One audit process on a database. A second one on the same database is another process."""

    def __init__(
        self, database: Database, signer: TreeHeadSigner, cadence: Cadence, memory: KnownHeads | None = None,
        hand: Signer | None = None,
    ) -> None:  # fmt: skip
        self.database, self.signer = database, signer
        self.lanes = PostgresLanes(database, "audit")
        self.clock = FixedClock(NOW)
        self.memory = memory if memory is not None else KnownHeads()
        self.unsigned = Unsigned(self.memory, self.clock, cadence)
        publisher = HeadPublisher(self.unsigned, hand or signer, PREFIX)
        self.handler = FactsHandler(self.lanes, PostgresLogs, publisher, self.unsigned)
        self.taken: dict[TopicPartition, Lane] = {}
        self.leftovers = Leftovers(
            database, PostgresLogs, publisher, self.unsigned, lambda: list(self.taken.values()), Signal(), self.clock
        )

    async def take(self, tp: TopicPartition = LANE) -> Lane:
        lane = await self.lanes.take(tp, topic_id="topic-id", log_start=0, log_end=10**9)
        self.taken[tp] = lane
        return lane

    def batch(self, lane: Lane, facts: Sequence[Outgoing]) -> LaneBatch:
        records = [
            Received(lane.tp.at(lane.next_offset + place), (one.key or "").encode(), one.value, tuple(one.headers))
            for place, one in enumerate(facts)
        ]
        return LaneBatch(lane, records, lane.next_offset + len(records))

    async def feed(self, facts: Sequence[Outgoing], tp: TopicPartition = LANE) -> None:
        """Apply facts as one batch of a lane."""
        lane = self.taken.get(tp) or await self.take(tp)
        batch = self.batch(lane, facts)
        await self.handler.apply(batch)
        self.taken[tp] = replace(lane, next_offset=batch.end_offset)

    async def outbox(self, topic: str) -> list[dict[str, Any]]:
        """Return the bodies that wait for one topic, in the order in which they leave."""
        async with self.database.transaction() as connection:
            rows = await connection.fetch("SELECT value FROM outbox WHERE topic = $1 ORDER BY id", topic)
        return [json.loads(row["value"]) for row in rows]

    async def rows(self, agency: str, sql: str, *args: Any) -> list[Any]:
        async with self.database.transaction([agency]) as connection:
            return list(await connection.fetch(sql, *args))

    async def entries(self, agency: str = "nasa") -> list[dict[str, Any]]:
        rows = await self.rows(agency, "SELECT entry FROM flux.audit_log WHERE agency_id = $1 ORDER BY seq", agency)
        return [json.loads(row["entry"]) for row in rows]

    async def check_log(self, agency: str = "nasa") -> int:
        """Assert that a log is gap-free and its head row the tree over it, built anew; return its size."""
        leaves = await self.rows(
            agency, "SELECT seq, entry FROM flux.audit_log WHERE agency_id = $1 ORDER BY seq", agency
        )
        (head,) = await self.rows(agency, "SELECT * FROM tree_heads WHERE agency_id = $1", agency)
        anew = append(Frontier(), [leaf_hash(row["entry"]) for row in leaves])
        stored = await self.rows(agency, "SELECT level, index, hash FROM nodes WHERE agency_id = $1", agency)

        assert [row["seq"] for row in leaves] == list(range(head["size"]))
        assert [json.loads(row["entry"])["seq"] for row in leaves] == list(range(head["size"]))
        assert (head["root"], tuple(head["frontier"])) == (anew.frontier.root, anew.frontier.hashes)
        assert {(row["level"], row["index"]): row["hash"] for row in stored} == {
            (node.at.level, node.at.index): node.hash for node in anew.nodes
        }
        return int(head["size"])

    def verify(self, receipt: dict[str, Any], agency: str = "nasa") -> dict[str, Any]:
        """Verify a receipt as whoever has it would: offline, with nothing but the verifier key."""
        key = self.signer.verifier_key(log_origin(PREFIX, agency))
        return verify_receipt(receipt, Trust([key], agency))

    async def signed(self, agency: str = "nasa") -> TreeHead | None:
        """Return the last head that the database says was signed."""
        (row,) = await self.rows(agency, "SELECT signed_head FROM tree_heads WHERE agency_id = $1", agency)
        return read_note(row["signed_head"])[0] if row["signed_head"] else None


@pytest.fixture
async def audit_database(settings_for: Callable[[str], Any]) -> AsyncIterator[Database]:
    """The audit service's login."""
    opened = await Database.open(settings_for("flux_audit"), "test")
    yield opened
    await opened.close()


@pytest.fixture
def signer() -> TreeHeadSigner:
    """A signing key for this test."""
    return TreeHeadSigner(Ed25519PrivateKey.generate())


Benches = Callable[..., Bench]


@pytest.fixture
def benches(audit_database: Database, signer: TreeHeadSigner) -> Benches:
    """Make processes on this test's database; keywords are a cadence, a memory, another hand that signs."""

    def make(cadence: Cadence = USUAL, **more: Any) -> Bench:
        return Bench(audit_database, signer, cadence, **more)

    return make


@pytest.fixture
def bench(benches: Benches) -> Bench:
    """One process with the usual cadence."""
    return benches()
