"""A service whose FastStream broker answers each record of one topic on another; run by test_service_kafka.py."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from faststream.kafka import KafkaBroker, KafkaMessage

from flux_common.observability.logging import get_logger
from flux_common.runtime import Jobs, Service, topics_exist, wait_for
from flux_common.runtime.cli import Program, main
from flux_common.settings import KafkaSettings, ServiceSettings

log = get_logger("toy")


class ToySettings(ServiceSettings):
    """The toy's settings."""

    kafka: KafkaSettings


def broker(settings: ToySettings) -> KafkaBroker:
    """Declare the subscriber and the publisher."""
    kafka = settings.kafka
    declared = KafkaBroker(kafka.bootstrap)

    @declared.subscriber(kafka.topic("asked"), group_id=kafka.topic("toy"), auto_offset_reset="earliest")
    async def answer(body: str, message: KafkaMessage) -> None:
        log.info("answering", body=body)
        await declared.publish(body.upper(), kafka.topic("answered"))

    return declared


@asynccontextmanager
async def build(service: Service[ToySettings]) -> AsyncIterator[Jobs]:
    """Wait for the topics, then say something last with the broker while draining."""
    kafka = service.settings.kafka
    await wait_for(service.health, "topics", topics_exist(kafka, ["asked", "answered"]))

    async def last_words() -> None:
        await service.stopping.wait()
        assert service.broker is not None
        await service.broker.publish("bye", kafka.topic("answered"))

    yield {"last-words": last_words()}


if __name__ == "__main__":
    sys.exit(main(Program("toy", "A toy.", ToySettings, build, broker)))
