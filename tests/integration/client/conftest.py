"""An agency on a real Kafka: its topics, its development key, and a pen that writes what Flux's services would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from flux_client.development import DevelopmentAgency, write_development_registry
from flux_client.keys import load_key, private_key_path
from flux_client.tokens import IssuerKey
from flux_common.contracts.catalogue import TOPICS, EventSpec, TopicSpec
from flux_common.contracts.outgoing import Emitter
from flux_common.contracts.types import Event
from flux_common.kafka.admin import Admin, create_topics
from flux_common.kafka.publisher import IdempotentPublisher
from flux_common.kernel.clock import SystemClock
from flux_common.kernel.errors import Unavailable
from flux_common.kernel.positions import TopicPartition
from flux_common.settings import KafkaSettings

AGENCY = "nasa"


@dataclass(frozen=True)
class Pen:
    """Writes events to the agency's topics under the ids given."""

    publisher: IdempotentPublisher

    async def write(self, topic: TopicSpec, spec: EventSpec, body: Event, key: str, event_id: UUID) -> None:
        """Write one event; returns when Kafka holds it."""
        event = Emitter("test").event(
            topic, spec, body, agency_id=AGENCY, key=key, event_id=event_id, at=SystemClock().now()
        )
        await self.publisher.send([event])


@pytest.fixture
async def settings(kafka_bootstrap: str, topic_prefix: str) -> KafkaSettings:
    """The agency's topics, under a prefix of this test's own."""
    found = KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix)
    await create_topics(found, [AGENCY], development=True)
    await leaders_answer(found)
    return found


async def leaders_answer(settings: KafkaSettings) -> None:
    """Wait until every Kafka partition of the agency's topics has a leader: a topic is there a moment before it."""
    tps = [
        TopicPartition(spec.of(AGENCY), number)
        for spec in TOPICS
        if spec.per_agency
        for number in range(spec.kafka_partitions)
    ]
    while True:
        with suppress(Unavailable):
            if len(await Admin(settings).logs(tps)) == len(tps):
                return
        await asyncio.sleep(0.1)


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """The agency's registry entry and key."""
    return write_development_registry(tmp_path / "keys", [DevelopmentAgency(AGENCY, "NASA", binding_required=False)])


@pytest.fixture
def issuer(registry: Path) -> IssuerKey:
    """The agency's development key."""
    return IssuerKey(load_key(private_key_path(registry.parent, AGENCY)))


@pytest.fixture
async def pen(settings: KafkaSettings) -> AsyncIterator[Pen]:
    """A service's hand."""
    publisher = IdempotentPublisher(settings)
    yield Pen(publisher)
    await publisher.close()
