"""A service with one loop whose behaviour a variable chooses; run by test_service_process.py as a real process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from flux_common.kernel.errors import InvariantBroken
from flux_common.observability.logging import get_logger
from flux_common.observability.tracing import step_span
from flux_common.runtime import Backoff, Jobs, Service, kafka_answers, postgres_answers, wait_for
from flux_common.runtime.cli import Program, main
from flux_common.settings import KafkaSettings, PostgresSettings, Section, ServiceSettings

log = get_logger("toy")


class ToySection(Section):
    """How the toy behaves."""

    model_config = SettingsConfigDict(env_prefix="FLUX_TOY_")

    mode: str = Field("work", description="Behaviour of the loop", examples=["work"])
    notes: Path = Field(description="File that gets a line at each step of the toy's life", examples=["/tmp/notes"])
    gate_port: int = Field(0, description="Port that has to answer before the toy starts; 0: none")
    wait_for: str = Field("", description="kafka or postgres: wait for it at the start")


class ToySettings(ServiceSettings):
    """The toy's settings."""

    toy: ToySection
    kafka: KafkaSettings
    postgres: PostgresSettings


@asynccontextmanager
async def build(service: Service[ToySettings]) -> AsyncIterator[Jobs]:
    """Open, yield the loop, close; each step leaves a note."""
    await _wait(service)
    note(service, "opened")
    yield {"toy": MODES[service.settings.toy.mode](service)}
    note(service, "closed")


async def _wait(service: Service[ToySettings]) -> None:
    settings, pauses = service.settings, Backoff(0.05, 0.1)
    if settings.toy.gate_port:
        await wait_for(
            service.health, "gate", lambda: asyncio.open_connection("127.0.0.1", settings.toy.gate_port), pauses
        )
    if settings.toy.wait_for == "kafka":
        await wait_for(service.health, "kafka", kafka_answers(settings.kafka), pauses)
    if settings.toy.wait_for == "postgres":
        await wait_for(service.health, "postgres", postgres_answers(settings.postgres, "toy"), pauses)


def note(service: Service[ToySettings], text: str) -> None:
    """Write one line that outlives the process."""
    with service.settings.toy.notes.open("a") as notes:
        notes.write(text + "\n")


async def work(service: Service[ToySettings]) -> None:
    """Work until told to stop, then take a moment to finish."""
    with step_span("toy step"):
        log.info("working", password="canary-word")
    while await service.pause(0.05):
        service.health.tick("toy")
    service.health.forget("toy")
    await asyncio.sleep(0.5)
    note(service, "finished")


async def fail(service: Service[ToySettings]) -> None:
    """Find the world broken."""
    await service.pause(0.2)
    raise InvariantBroken("INVARIANT_BROKEN", "two rows claim one seq").with_context(run_id="r-1")


async def leave(service: Service[ToySettings]) -> None:
    """Return although nobody asked."""
    await service.pause(0.2)


async def refuse(service: Service[ToySettings]) -> None:
    """Never stop by itself."""
    await asyncio.Event().wait()


async def stall(service: Service[ToySettings]) -> None:
    """Tick once and never again, while the event loop goes on."""
    service.health.tick("toy")
    await service.stopping.wait()


MODES = {"work": work, "fail": fail, "leave": leave, "refuse": refuse, "stall": stall}

if __name__ == "__main__":
    sys.exit(main(Program("toy", "A toy.", ToySettings, build)))
