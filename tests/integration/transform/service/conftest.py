"""The hand of checkpoint before a transform that runs on a real Kafka.

It dispatches items and reads reports back; what it holds against each other is what it dispatched, what was answered, and
what the group has committed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as BrokerPartition
from confluent_kafka.admin import AdminClient

from flux_common.contracts import catalogue
from flux_common.kafka import create_topics
from flux_common.kernel.ids import run_id
from flux_common.settings import KafkaSettings
from flux_transform.domain.items import Item, Job

AGENCY = "national-archives"
GROUP = "flux-transform-work"
ENDS = {"planned", "finished", "failed"}
Place = tuple[int, int]


@dataclass
class Desk:
    """Checkpoint's hand: dispatches, fences, reads reports and committed offsets."""

    kafka: KafkaSettings
    producer: AIOKafkaProducer
    reader: AIOKafkaConsumer
    travel: Callable[[Item], Any]
    places: dict[Place, Item] = field(default_factory=dict)
    reports: list[tuple[str, Any, str]] = field(default_factory=list)

    async def dispatch(self, item: Item) -> None:
        """Write a work item, and note its place."""
        value, headers = self.travel(item)
        topic, key = self.kafka.topic(catalogue.WORK.name), f"{item.name}/{item.term}".encode()
        sent = await self.producer.send_and_wait(topic, value, key=key, headers=headers)
        self.places[(sent.partition, sent.offset)] = item

    async def read(self) -> None:
        """Take in all reports there are."""
        tps = self.reader.assignment()
        ends = await self.reader.end_offsets(tps)
        while any([await self.reader.position(tp) < ends[tp] for tp in tps]):
            for records in (await self.reader.getmany(timeout_ms=100)).values():
                for record in records:
                    headers = dict(record.headers)
                    kind = headers["ce_type"].decode().split(".")[2]
                    self.reports.append((kind, json.loads(record.value), headers["ce_id"].decode()))

    async def until(self, holds: Callable[[], Any], seconds: float = 60) -> None:
        """Read reports until something holds."""
        async with asyncio.timeout(seconds):
            while not holds():
                await self.read()
                await asyncio.sleep(0.02)

    def ends(self) -> dict[str, set[tuple[str, str | None]]]:
        """Return what was said last of each item and term: kinds and codes."""
        found: dict[str, set[tuple[str, str | None]]] = {}
        for kind, body, _ in self.reports:
            if kind in ENDS:
                name = f"{body['run_id']}/{body['kind']}/{body['number']}/{body['term']}"
                found.setdefault(name, set()).add((kind, body.get("code")))
        return found

    def end(self, item: Item) -> set[tuple[str, str | None]]:
        """Return what was said last of one item."""
        return self.ends().get(f"{item.name}/{item.term}", set())

    def unanswered(self) -> set[Place]:
        """Return the places of dispatched items that nobody answered yet."""
        answered = self.ends()
        return {place for place, item in self.places.items() if f"{item.name}/{item.term}" not in answered}

    async def committed(self) -> dict[int, int]:
        """Return the group's committed offset of each Kafka partition that has one."""
        topic, group = self.kafka.topic(catalogue.WORK.name), self.kafka.topic(GROUP)
        asking = AIOKafkaConsumer(bootstrap_servers=self.kafka.bootstrap, group_id=group, enable_auto_commit=False)
        await asking.start()
        try:
            asking.assign([BrokerPartition(topic, n) for n in range(catalogue.WORK.kafka_partitions)])
            found = {tp.partition: await asking.committed(tp) for tp in asking.assignment()}
        finally:
            await asking.stop()
        return {n: offset for n, offset in found.items() if offset is not None}

    async def committed_unanswered(self) -> set[Place]:
        """Return what would be lost: places below the committed offset that have no answer (asked in this order)."""
        committed = await self.committed()
        await self.read()
        return {place for place in self.unanswered() if place[1] < committed.get(place[0], 0)}

    async def members(self) -> int:
        """Return how many members the group has."""
        client = AdminClient({"bootstrap.servers": self.kafka.bootstrap})
        group = self.kafka.topic(GROUP)
        asked = client.describe_consumer_groups([group])[group]
        return len((await asyncio.to_thread(asked.result, 10)).members)


OpenDesk = Callable[..., Any]


@pytest.fixture
def desk(topic_prefix: str, travel: Callable[[Item], Any]) -> OpenDesk:
    """Return what opens a desk on a Kafka, with all topics."""

    @asynccontextmanager
    async def opened(bootstrap: str, **more: Any) -> AsyncIterator[Desk]:
        settings = KafkaSettings(bootstrap=bootstrap, topic_prefix=topic_prefix, **more)
        await create_topics(settings, [], development=True)
        topic = settings.topic(catalogue.PROGRESS.name)
        async with (
            AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer,
            AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest") as reader,
        ):
            tps = [BrokerPartition(topic, n) for n in range(catalogue.PROGRESS.kafka_partitions)]
            reader.assign(tps)
            await reader.seek_to_beginning(*tps)
            yield Desk(settings, producer, reader, travel)

    return opened


def job_of(folder: Path, texts: int = 1) -> Job:
    """Write an archive of texts, and return the job that makes it a dataset."""
    (folder / "in").mkdir(parents=True)
    for n in range(texts):
        (folder / "in" / f"{n:05d}.txt").write_text(f"Text number {n} of this archive.\n")
    return Job(
        f"file://{folder}/in/", f"file://{folder}/out/", "text", "research", partition_objects_max=100_000
    )  # fmt: skip


def plan_of(name: str, job: Job, agency: str = AGENCY) -> Item:
    """Return the plan item of a run."""
    return Item(agency, str(run_id(agency, name)), name, 1, "plan", 0, 1, job)
