"""Ingest as a real process on a real Kafka and a real PostgreSQL: hostile records, a kill, a new agency."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from flux_client.development import DevelopmentAgency, write_development_registry
from flux_common.kafka import create_topics
from flux_common.kernel.ids import shard_of
from flux_common.settings import KafkaSettings, PostgresSettings
from flux_devkit.plugin import Database
from flux_devkit.services import Service, ServiceOptions

AGENCIES = ("nasa", "loc")
ANSWERS = ("run.decisions.v1", "dead-letters.v1")


@dataclass
class World:
    """A running ingest, a producer that checks nothing, and what is read `read_committed` from its topics."""

    kafka: KafkaSettings
    service: Service
    producer: AIOKafkaProducer
    database: Database
    read: list[Any] = field(default_factory=list)
    consumer: AIOKafkaConsumer | None = None

    async def send(self, value: bytes | None, headers: Any, *, agency: str = "nasa", **more: Any) -> tuple[int, int]:
        """Write one record; return its Kafka partition and offset."""
        topic = self.kafka.topic(f"flux.{agency}.run.requests.v1")
        if value is None:
            more["key"] = b"any"  # this client sends no record without key and value
        sent = await self.producer.send_and_wait(topic, value, headers=headers, **more)
        return sent.partition, sent.offset

    async def until(self, enough: Callable[[], bool], seconds: float = 90) -> None:
        """Read the answers until there are enough."""
        if self.consumer is None:
            self.consumer = AIOKafkaConsumer(
                *(self.kafka.topic(f"flux.{agency}.{name}") for agency in AGENCIES for name in ANSWERS),
                *(self.kafka.topic(name) for name in ("flux-internal.runs.v1", "flux-internal.audit.v1")),
                bootstrap_servers=self.kafka.bootstrap,
                group_id=None,
                isolation_level="read_committed",
                auto_offset_reset="earliest",
            )
            await self.consumer.start()
        async with asyncio.timeout(seconds):
            while not enough():
                for records in (await self.consumer.getmany(timeout_ms=200)).values():
                    self.read += records

    def answers(self) -> dict[tuple[int, int], list[tuple[str, str | None]]]:
        """Return (type, code) of every decision and dead letter, by the position that it names."""
        found: dict[tuple[int, int], list[tuple[str, str | None]]] = {}
        for record in self.read:
            if record.topic.endswith(ANSWERS):
                body = json.loads(record.value)
                place = body["position"]["kafka_partition"], body["position"]["offset"]
                found.setdefault(place, []).append((_type(record), body.get("code")))
        return found

    def types(self) -> Counter[str]:
        """Count what was read, by type."""
        return Counter(_type(record) for record in self.read)

    async def logged(self, text: str, *, times: int = 1, seconds: float = 30) -> None:
        """Wait until the service has logged it."""
        async with asyncio.timeout(seconds):
            while self.service.log.read_text().count(text) < times:  # noqa: ASYNC110 - it is another process that writes it
                await asyncio.sleep(0.05)

    async def query(self, sql: str) -> list[Any]:
        """Ask the database as the superuser, who sees every agency."""
        connection = await asyncpg.connect(self.database.dsn)
        try:
            return list(await connection.fetch(sql))
        finally:
            await connection.close()


def _type(record: Any) -> str:
    return dict(record.headers)["ce_type"].decode().removeprefix("flux.").removesuffix(".v1")


StartWorld = Callable[..., Any]


@pytest.fixture
def world(
    kafka_bootstrap: str,
    topic_prefix: str,
    database: Database,
    settings_for: Callable[[str], PostgresSettings],
    hand: Any,
    tmp_path: Path,
) -> StartWorld:
    """Start ingest inside a block."""

    @asynccontextmanager
    async def start(**variables: str) -> AsyncIterator[World]:
        kafka = KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix)
        await create_topics(kafka, AGENCIES, development=True)
        postgres = settings_for("flux_ingest")
        env = {
            "FLUX_KAFKA_BOOTSTRAP": kafka_bootstrap,
            "FLUX_KAFKA_SESSION_TIMEOUT_MS": "6000",
            "FLUX_TOPIC_PREFIX": topic_prefix,
            "FLUX_POSTGRES_DSN": postgres.dsn,
            "FLUX_POSTGRES_PASSWORD_FILE": str(postgres.password_file),
            "FLUX_AGENCIES_FILE": str(hand.keys / "agencies.yaml"),
            "FLUX_INTAKE_REGISTRY_REFRESH_MS": "1000",
        } | variables
        service = Service(ServiceOptions("ingest", "flux_ingest", env), tmp_path)
        producer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, max_request_size=2**21 - 2**16, acks="all")
        await producer.start()
        one = World(kafka, service, producer, database)
        try:
            await asyncio.to_thread(service.start)
            yield one
        finally:
            await asyncio.to_thread(service.stop)
            await producer.stop()
            if one.consumer is not None:
                await one.consumer.stop()

    return start


def _hostile(hand: Any) -> list[tuple[bytes | None, Any, tuple[str, str | None]]]:
    """Return (value, headers, answer) of each record that an attacker or a careless producer may send, in this order."""
    foreign = replace(hand, agency_id="loc")
    old = datetime.now(UTC) - timedelta(hours=2)
    rejected, dead = "run.rejected", "record.dead-lettered"
    return [
        (hand.body("r-1"), hand.headers(), ("run.accepted", None)),
        (hand.body("r-2", agency="loc"), hand.headers(), (rejected, "AGENCY_MISMATCH")),
        (hand.body("r-2"), hand.headers(hand.token(issued_at=old)), (rejected, "TOKEN_EXPIRED")),
        (hand.body("r-2"), hand.headers(foreign.token()), (rejected, "AGENCY_MISMATCH")),
        (hand.body("r-2"), hand.headers(hand.token(iss="https://evil.example")), (rejected, "ISSUER_UNKNOWN")),
        (hand.body("r-2", content_type="films"), hand.headers(), (rejected, "SCHEMA_VIOLATION")),
        (hand.body("r-1"), hand.headers(), ("run.repeated", None)),
        (hand.body("r-1", labels={"a": "b"}), hand.headers(), (rejected, "REQUEST_CONFLICT")),
        (hand.body("r-2"), hand.headers(ce_subject=b"\xff\xfe"), (dead, "NOT_UTF8")),
        (None, hand.headers(), (rejected, "VALUE_MISSING")),
        (None, [], (dead, "HEADER_INVALID")),
        (os.urandom(2**20), hand.headers(), (rejected, "TOO_LARGE")),
        (os.urandom(2**20), [], (dead, "HEADER_INVALID")),
        (b"[" * 200_000, hand.headers(), (rejected, "JSON_TOO_DEEP")),
        (hand.body("r-2"), hand.headers(ce_type=b"flux.run.accepted.v1"), (dead, "EVENT_TYPE_UNKNOWN")),
        (hand.body("r-2"), [(f"ce_{n}", b"x") for n in range(50_000)], (dead, "HEADER_INVALID")),
        (hand.body("r-2"), hand.headers(hand.token(role="viewer")), (rejected, "ROLE_FORBIDDEN")),
        (hand.body("r-2", use_case="vr"), hand.headers(), (rejected, "USE_CASE_NOT_AVAILABLE")),
        (hand.body("r-2", source={"uri": "file:///etc/"}), hand.headers(), (rejected, "SOURCE_NOT_ALLOWED")),
        (hand.command("c-1"), hand.headers(kind="command"), ("run.command-accepted", None)),
        (hand.body("r-2"), hand.headers(), ("run.accepted", None)),
    ]


async def test_each_hostile_record_has_its_answer_and_the_lane_goes_on(world: StartWorld, hand: Any) -> None:
    """Every record gets exactly one decision or dead letter with its own code; what follows is decided as ever."""
    async with world() as running:
        expected = {}
        for value, headers, answer in _hostile(hand):
            expected[await running.send(value, headers, partition=0)] = [answer]
        await running.until(lambda: len(running.answers()) >= len(expected) and running.types()["run.admitted"] >= 2)
        ready = running.service.ready()
        booked = await running.query(
            "SELECT sum(effects) AS effects, sum(duplicates) AS duplicates, sum(dead_letters) AS dead,"
            " sum(to_offset - from_offset) AS all FROM flux_ingest.ledger"
        )

    assert running.answers() == expected
    assert ready
    assert dict(booked[0]) == {"effects": 15, "duplicates": 1, "dead": 5, "all": len(expected)}
    log = running.service.log.read_text()
    assert "Bearer" not in log
    assert "eyJ" not in log


@pytest.mark.slow
async def test_a_kill_loses_and_repeats_nothing(world: StartWorld, hand: Any) -> None:
    """SIGKILL in the middle of the work, twice: every request has one acceptance and one admission."""
    names = [f"r-{n}" for n in range(1500)]
    async with world(FLUX_INTAKE_BATCH_RECORDS_MAX="50") as running:

        async def produce() -> None:
            for name in names:
                await running.send(hand.body(name), hand.headers(), key=name.encode())

        producing = asyncio.create_task(produce())
        for enough in (100, 600):
            await running.until(lambda enough=enough: running.types()["run.accepted"] >= enough)
            running.service.kill()
            await asyncio.to_thread(running.service.start)
        await producing
        await running.until(lambda: running.types()["run.accepted"] >= len(names))
        await running.until(lambda: running.types()["run.admitted"] >= len(names))
        left = await running.query("SELECT count(*) AS n FROM flux_ingest.requests")

    ids = Counter(dict(record.headers)["ce_id"] for record in running.read)
    accepted = Counter(record.key.decode() for record in running.read if _type(record) == "run.accepted")
    assert accepted == Counter(names)
    assert running.types()["run.admitted"] == len(names) == left[0]["n"]
    assert set(ids.values()) == {1}


async def test_a_topic_is_read_once_its_agency_is_registered(world: StartWorld, hand: Any) -> None:
    """An unknown agency's topic is alerted and not read; registered, its records are decided without a restart."""
    only_nasa = (DevelopmentAgency("nasa", "NASA", reuse_unbound_tokens=False),)
    both = (*only_nasa, DevelopmentAgency("loc", "Library", algorithm="EdDSA", reuse_unbound_tokens=False))
    write_development_registry(hand.keys, only_nasa)
    foreign = replace(hand, agency_id="loc")
    async with world() as running:
        await running.send(foreign.body("early"), foreign.headers(), agency="loc", partition=0)
        await running.send(hand.body("r-1"), hand.headers(), partition=0)
        await running.until(lambda: running.types()["run.accepted"] == 1)
        unread = not [record for record in running.read if record.key == b"early"]
        write_development_registry(hand.keys, both)
        await running.until(lambda: running.types()["run.accepted"] == 2)

    assert unread
    assert "AGENCY_NOT_FOUND" in running.service.log.read_text()
    assert {record.key for record in running.read if _type(record) == "run.accepted"} == {b"r-1", b"early"}


async def test_lanes_wait_while_the_outbox_is_full(world: StartWorld, hand: Any) -> None:
    """No relay is at work, the outbox is full: a request waits undecided, the service stays ready; then it is decided."""
    nobody = "UPDATE flux_ingest.relay_leases SET holder = 'gone', term = term + 1, expires_at = now() + interval '1 h'"
    fill = (
        "INSERT INTO flux_ingest.outbox (shard, agency_id, event_id, topic, key, headers, value)"
        f" SELECT {shard_of('nasa')}, 'nasa', gen_random_uuid(), 'none', 'k', '[]', '' FROM generate_series(1, 100001)"
    )
    async with world() as running:
        await running.query(nobody)
        await running.query(fill)
        await running.logged("lanes wait for room in the outbox")
        await running.send(hand.body("r-1"), hand.headers(), partition=0)
        await running.logged("OUTBOX_FULL", times=2)
        undecided = await running.query("SELECT count(*) AS n FROM flux_ingest.requests")
        ready = running.service.ready()
        await running.query("DELETE FROM flux_ingest.outbox")
        await running.query("UPDATE flux_ingest.relay_leases SET expires_at = '-infinity'")
        await running.until(lambda: running.types()["run.accepted"] == 1)

    assert (undecided[0]["n"], ready) == (0, True)
    assert running.types()["run.admitted"] == 1
