"""The edge of Flux alone: an ingest process on real servers, a hand that sends anything, an eye on what is answered.

Both times are the broker's: a request's LogAppendTime, and that of its answer (these topics are told to stamp it), so that
neither this process's pace nor its clock is measured. Between them lie the fetch, the verdict, the commit and the relay;
what follows is the end of the relay's Kafka transaction, some milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from confluent_kafka.admin import (  # type: ignore[attr-defined] # re-exported without saying so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from flux_client.development import DevelopmentAgency
from flux_common.contracts.catalogue import DEAD_LETTERS, DECISIONS, INTAKE_FLOODED, REQUESTS
from flux_devkit.errors import DevkitError
from flux_devkit.installation import Installation
from flux_devkit.kafka import delete_topics
from flux_devkit.postgres import create_database, drop_database
from flux_devkit.proofs.forging import Forged
from flux_devkit.servers import Servers
from flux_devkit.services import Service

SEND_BYTES_MAX: Final = 64 * 2**20  # this client's own bound; the broker's is on what it compresses to
BATCH_BYTES: Final = (
    15 * 2**20
)  # what fits together into a batch that Flux unfolds, so that each record is judged by itself
KAFKA_PARTITIONS: Final = 3


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands: its agency, Kafka partition and offset."""

    agency_id: str
    kafka_partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision or dead letter: its type and code, and when the broker had it (seconds)."""

    type: str
    code: str | None
    at: float


@dataclass
class Edge:
    """A running ingest. `sent` has the LogAppendTime of each record (seconds), `answers` what was said about it."""

    installation: Installation
    service: Service
    plain: AIOKafkaProducer
    compressing: AIOKafkaProducer
    sent: dict[Place, float] = field(default_factory=dict)
    answers: dict[Place, list[Answer]] = field(default_factory=dict)
    floods: int = 0

    async def send(self, agency_id: str, forged: Forged, *, kafka_partition: int | None = None) -> Place:
        """Write one record, and return where it stands."""
        producer = self.compressing if forged.compressed else self.plain
        topic = self.installation.kafka().topic(REQUESTS.of(agency_id))
        key = forged.key
        if forged.value is None and key is None:
            key = b"any"  # this client sends no record without key and value
        number = secrets.randbelow(KAFKA_PARTITIONS) if kafka_partition is None else kafka_partition
        sending = await producer.send(topic, forged.value, key, partition=number, headers=list(forged.headers))
        written = await sending
        place = Place(agency_id, written.partition, written.offset)
        self.sent[place] = written.timestamp / 1000
        return place

    async def send_all(self, records: Iterable[tuple[str, Callable[[], Forged]]], rate: float) -> list[Place]:
        """Write records, `rate` of them each second, made when they are due; return where they stand, in order."""
        begun, sending = time.monotonic(), []
        for number, (agency_id, make) in enumerate(records):
            await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
            sending.append(asyncio.create_task(self.send(agency_id, make())))
        return list(await asyncio.gather(*sending))

    async def answered(self, places: Sequence[Place], seconds: float) -> None:
        """Wait until every record has an answer. Raises DevkitError after `seconds`."""
        deadline = time.monotonic() + seconds
        while missing := [place for place in places if place not in self.answers]:
            if time.monotonic() > deadline:
                raise DevkitError(f"{len(missing)} records have no answer, such as {missing[0]}")
            await asyncio.sleep(0.1)

    def said(self, place: Place) -> list[tuple[str, str | None]]:
        """Return type and code of everything that answers a record."""
        return [(answer.type, answer.code) for answer in self.answers.get(place, [])]

    def latencies(self, places: Iterable[Place]) -> list[float]:
        """Return how long each record waited for its first answer, in milliseconds, ascending."""
        return sorted((self.answers[place][0].at - self.sent[place]) * 1000 for place in places)

    def memory(self) -> tuple[int, int]:
        """Return ingest's resident memory in bytes: now, and the most there ever was."""
        lines = Path(f"/proc/{self.service.process.pid}/status").read_text().splitlines()
        kibibytes = {
            name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if "kB" in rest
        }
        return kibibytes["VmRSS"] * 1024, kibibytes["VmHWM"] * 1024

    async def listen(self, consumer: AIOKafkaConsumer) -> None:
        """Note answers for ever."""
        while True:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    self._note(record)

    def _note(self, record: Any) -> None:
        body, type_ = json.loads(record.value), dict(record.headers)["ce_type"].decode()
        place, answer = body["position"], Answer(type_, body.get("code"), record.timestamp / 1000)
        offsets: Iterable[int] = [place["offset"]]
        if type_ == INTAKE_FLOODED.ce_type:
            self.floods += 1
            offsets = [one for part in body["offsets"] for one in range(part["first"], part["last"] + 1)]
        for offset in offsets:
            found = self.answers.setdefault(Place(body["agency_id"], place["kafka_partition"], offset), [])
            found.append(answer)


def load() -> str:
    """Return how busy the machine is with everything, for whoever reads a figure of time."""
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def percentile(ascending: Sequence[float], share: float) -> float:
    """Return the value that `share` of them do not exceed."""
    return ascending[min(len(ascending) - 1, int(len(ascending) * share))]


@asynccontextmanager
async def edge(
    servers: Servers, folder: Path, agencies: Sequence[DevelopmentAgency], *, role_password: str | None = None
) -> AsyncIterator[Edge]:
    """Run ingest for these agencies, in a database and under a prefix of its own; nothing of it is left."""
    installation = Installation(
        servers, folder / "keys", folder / "data", f"edge_{secrets.token_hex(6)}", f"g{secrets.token_hex(3)}.",
        agencies, role_password=role_password,
    )  # fmt: skip
    await asyncio.to_thread(create_database, servers.postgres_dsn, installation.database)
    await installation.prepare()
    await asyncio.to_thread(_stamp_answers, installation)
    service = Service(installation.services(["ingest"])[0], folder)
    try:
        await asyncio.to_thread(service.start)
        async with _listening(installation, service) as running:
            yield running
    finally:
        await asyncio.to_thread(service.stop)
        await asyncio.to_thread(drop_database, servers.postgres_dsn, installation.database)
        await asyncio.to_thread(delete_topics, installation.kafka().confluent_options(), installation.topic_prefix)


def _stamp_answers(installation: Installation) -> None:
    """Have the broker stamp answers with the time when it appends them."""
    kafka, admin = installation.kafka(), AdminClient(installation.kafka().confluent_options())
    stamped = ConfigEntry("message.timestamp.type", "LogAppendTime", incremental_operation=AlterConfigOpType.SET)
    names = [kafka.topic(spec.of(one.agency_id)) for one in installation.agencies for spec in (DECISIONS, DEAD_LETTERS)]
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[stamped]) for name in names]
    for changed in admin.incremental_alter_configs(resources).values():
        changed.result(30)


@asynccontextmanager
async def _listening(installation: Installation, service: Service) -> AsyncIterator[Edge]:
    bootstrap, kafka = installation.servers.kafka_bootstrap, installation.kafka()
    options = {"bootstrap_servers": bootstrap, "acks": "all", "max_request_size": SEND_BYTES_MAX}
    topics = [
        kafka.topic(spec.of(one.agency_id)) for one in installation.agencies for spec in (DECISIONS, DEAD_LETTERS)
    ]
    consumer = AIOKafkaConsumer(
        *topics, bootstrap_servers=bootstrap, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    async with (
        AIOKafkaProducer(**options) as plain,
        AIOKafkaProducer(**options, compression_type="zstd", max_batch_size=BATCH_BYTES) as compressing,
        consumer,
    ):
        running = Edge(installation, service, plain, compressing)
        listening = asyncio.create_task(running.listen(consumer))
        try:
            yield running
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
