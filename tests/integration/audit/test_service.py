"""The service as a process on a real Kafka and a real PostgreSQL: facts in, receipts out, whatever kills it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from flux_audit.adapters.signer import log_verifier_key
from flux_audit.domain.merkle import Frontier, append, leaf_hash
from flux_audit.domain.tree_head import read_note
from flux_client.keys import ensure_key, private_key_path
from flux_client.verifier import Trust, verify_receipt
from flux_common.contracts.catalogue import AUDIT, RECEIPTS, TREE_HEADS
from flux_common.contracts.facts import AuditSealed, LaneWatermark, TreeHeadSigned
from flux_common.kafka.admin import create_topics
from flux_common.kafka.follow import TopicFollower, hear_topic
from flux_common.kafka.publisher import IdempotentPublisher
from flux_common.kernel.positions import Received
from flux_common.settings import KafkaSettings, PostgresSettings
from flux_devkit.plugin import Database
from flux_devkit.services import Service, ServiceOptions

from .conftest import PREFIX, event_id, fact

AGENCIES = ("nasa", "library-of-congress")


@dataclass
class Site:
    """One audit service: its settings, and what it reads and writes."""

    kafka: KafkaSettings
    dsn: str
    key_file: Path
    service: Service
    publisher: IdempotentPublisher

    def trust(self, agency: str) -> Trust:
        return Trust([log_verifier_key(self.key_file, PREFIX, agency)], agency)

    async def read(self, topics: list[str]) -> list[Any]:
        """Return everything that a read_committed subscriber sees."""
        follower = TopicFollower(self.kafka, topics)
        await follower.open()
        try:
            return [record async for records in follower.to_end() for record in records]
        finally:
            await follower.close()

    async def receipts(self) -> list[AuditSealed]:
        records = await self.read([RECEIPTS.of(agency) for agency in AGENCIES])
        return [AuditSealed.model_validate_json(record.value) for record in records]

    async def until_receipts(self, count: int, seconds: float = 90) -> list[AuditSealed]:
        deadline = asyncio.get_running_loop().time() + seconds
        while len(found := await self.receipts()) < count:
            assert asyncio.get_running_loop().time() < deadline, (
                f"{len(found)} of {count}; {self.service.log.read_text()}"
            )
            await asyncio.sleep(0.2)
        return found

    async def send(self, numbers: range) -> None:
        await self.publisher.send([fact(n, agency) for n in numbers for agency in AGENCIES])

    async def logs(self) -> dict[str, list[bytes]]:
        """Return every log's entries, as the owner of the database sees them."""
        connection = await asyncpg.connect(self.dsn)
        try:
            rows = await connection.fetch("SELECT agency_id, seq, entry FROM flux.audit_log ORDER BY agency_id, seq")
        finally:
            await connection.close()
        found: dict[str, list[bytes]] = {agency: [] for agency in AGENCIES}
        for row in rows:
            assert row["seq"] == len(found[row["agency_id"]])
            found[row["agency_id"]].append(row["entry"])
        return found


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """The signing key as the development kit makes it."""
    ensure_key(tmp_path / "keys", "audit-tree-heads", "EdDSA")
    return private_key_path(tmp_path / "keys", "audit-tree-heads")


@pytest.fixture
def service(
    kafka_bootstrap: str,
    topic_prefix: str,
    settings_for: Callable[[str], PostgresSettings],
    key_file: Path,
    tmp_path: Path,
) -> Iterator[Service]:
    """`python -m flux_audit serve`, not started."""
    postgres = settings_for("flux_audit")
    options = ServiceOptions(
        "audit",
        "flux_audit",
        {
            "FLUX_KAFKA_BOOTSTRAP": kafka_bootstrap,
            "FLUX_TOPIC_PREFIX": topic_prefix,
            "FLUX_KAFKA_SESSION_TIMEOUT_MS": "6000",
            "FLUX_POSTGRES_DSN": postgres.dsn,
            "FLUX_POSTGRES_PASSWORD_FILE": str(postgres.password_file),
            "FLUX_AUDIT_KEY_FILE": str(key_file),
        },
    )
    made = Service(options, tmp_path)
    yield made
    made.stop()


@pytest.fixture
async def site(
    kafka_bootstrap: str, topic_prefix: str, database: Database, service: Service, key_file: Path
) -> AsyncIterator[Site]:
    """A service with its topics, not started."""
    kafka = KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix)
    await create_topics(kafka, AGENCIES, development=True)
    publisher = IdempotentPublisher(kafka)
    yield Site(kafka, database.dsn, key_file, service, publisher)
    await publisher.close()


async def test_facts_in_receipts_out(site: Site) -> None:
    """Each fact has one receipt that verifies offline, heads are on their topic, and the process stops in order."""
    await asyncio.to_thread(site.service.start)
    await site.send(range(50))
    receipts = await site.until_receipts(100)
    heads = [
        TreeHeadSigned.model_validate_json(record.value)
        for record in await site.read([TREE_HEADS.name])
        if not record.key.startswith(b"_lane/")
    ]
    status = await asyncio.to_thread(site.service.stop)
    proven = [verify_receipt(receipt.model_dump(), site.trust(receipt.agency_id)) for receipt in receipts]

    assert Counter((entry["agency_id"], entry["refs"]["event_id"]) for entry in proven) == Counter(
        (agency, str(event_id(n))) for agency in AGENCIES for n in range(50)
    )
    assert {read_note(receipt.tree_head)[0].root.hex() for receipt in receipts} <= {head.root for head in heads}
    assert status == 0, site.service.log.read_text()


async def test_lanes_on_which_nothing_comes_say_again_and_again_that_they_are_sealed(site: Site) -> None:
    """A quiet lane, even one that never had a record, does not look as if it lagged: its watermark moves with time."""
    said: dict[int, list[datetime]] = defaultdict(list)
    twice = asyncio.Event()

    def hear(records: Sequence[Received]) -> None:
        for record in records:
            word = LaneWatermark.model_validate_json(record.value or b"")
            said[word.kafka_partition].append(datetime.fromisoformat(word.watermark))
        if len(said) == AUDIT.kafka_partitions and all(len(words) > 1 for words in said.values()):
            twice.set()

    await asyncio.to_thread(site.service.start)
    async with asyncio.timeout(60):
        await hear_topic(site.kafka, TREE_HEADS.name, hear, twice)

    assert sorted(said) == list(range(AUDIT.kafka_partitions))
    assert all(words == sorted(set(words)) for words in said.values())


@pytest.mark.slow
async def test_kill_9_in_the_middle_loses_and_doubles_nothing(site: Site) -> None:
    """Killed twice while it seals, signs and relays: every fact is one leaf and has one receipt, and no log forked."""
    await asyncio.to_thread(site.service.start)
    for kill in range(2):
        sending = asyncio.create_task(site.send(range(kill * 400, kill * 400 + 400)))
        await site.until_receipts(kill * 800 + 100)
        site.service.kill()
        await sending
        await asyncio.to_thread(site.service.start)
    await site.until_receipts(1600)
    await asyncio.sleep(1.5)  # whatever would be doubled has time to come
    receipts = await site.receipts()
    logs = await site.logs()
    for agency, entries in logs.items():
        for receipt in (one for one in receipts if one.agency_id == agency):
            verify_receipt(receipt.model_dump(), site.trust(agency))
            anew = append(Frontier(), [leaf_hash(entry) for entry in entries[: receipt.tree_size]]).frontier.root
            assert read_note(receipt.tree_head)[0].root == anew

    assert {agency: len(entries) for agency, entries in logs.items()} == dict.fromkeys(AGENCIES, 800)
    assert sorted((one.agency_id, one.leaf_index) for one in receipts) == sorted(
        (agency, leaf) for agency in AGENCIES for leaf in range(800)
    )
    assert len({(one.agency_id, one.event_id) for one in receipts}) == 1600


def test_the_command_prints_the_key_that_verifies(key_file: Path) -> None:
    """`verifier-key AGENCY` needs the key file alone, and says exactly what a verifier is to be given."""
    environment = {"FLUX_AUDIT_KEY_FILE": str(key_file)}
    command = [sys.executable, "-m", "flux_audit", "verifier-key", "nasa"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    missing = subprocess.run(command, env={}, capture_output=True, text=True, check=False)

    assert told.stdout == log_verifier_key(key_file, PREFIX, "nasa") + "\n"
    assert missing.returncode == 2
    assert "FLUX_AUDIT_KEY_FILE is not set" in missing.stderr
