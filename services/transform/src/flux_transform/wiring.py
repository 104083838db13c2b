"""Putting transform together: a work consumer, the fences, the decoder processes and the reporter."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from os import getpid

from flux_common.auth import RegistrySource
from flux_common.contracts import catalogue
from flux_common.kafka.publisher import IdempotentPublisher
from flux_common.kafka.work import WorkConsumer
from flux_common.observability.logging import get_logger
from flux_common.runtime.registry_refresh import look_again
from flux_common.runtime.service import Jobs, Service
from flux_common.runtime.waiting import ask, kafka_answers, kafka_is_there, topics_exist
from flux_transform import together
from flux_transform.adapters.fences import HeardFences
from flux_transform.adapters.plan_file import PlanFiles
from flux_transform.adapters.reporter import ProgressReporter
from flux_transform.adapters.store import Access, OpenStores, Prefixes, PrefixesOf
from flux_transform.adapters.workers import ProcessWorkers
from flux_transform.domain.limits import DEFAULT_LIMITS
from flux_transform.handlers.tools import Tools
from flux_transform.handlers.worker import Drops, Worker
from flux_transform.settings import TransformSettings
from flux_transform.version import transform_version

TOPICS = (catalogue.WORK.name, catalogue.FENCES.name, catalogue.PROGRESS.name)
WATCH_SECONDS = 1.0
LEAVE_SECONDS = 12.0  # what a group may take to be left, of the time that a process has to end

log = get_logger(__name__)


@asynccontextmanager
async def build(service: Service[TransformSettings]) -> AsyncIterator[Jobs]:
    """Open what transform needs and yield its loops."""
    settings = service.settings
    for condition in ("fences", "group"):
        service.health.require(condition)
    registry = RegistrySource(settings.agencies.file, service.clock.now()) if settings.agencies.file else None
    await service.wait_for("kafka", kafka_answers(settings.kafka))
    await service.wait_for("topics", topics_exist(settings.kafka, TOPICS))
    publisher, heard = IdempotentPublisher(settings.kafka), HeardFences()
    async with ProcessWorkers(settings.work.decoders(), DEFAULT_LIMITS) as workers:
        drops = Drops(heard.fenced)
        access = Access(settings.store.roots(), prefixes_of(registry) if registry else None)
        worker = Worker(
            _tools(service, OpenStores(access, settings.store.secrets()), publisher, workers, drops),
            drops,
            places=settings.work.places(),
            ready=heard.ready,
            commit=lambda offsets: consumer.commit(offsets),
            clock=service.clock,
        )
        consumer = WorkConsumer(
            settings.kafka,
            group=catalogue.TRANSFORM_WORK.name,
            topic=catalogue.TRANSFORM_WORK.topic.name,
            listener=worker,
            clock=service.clock,
            on_tick=lambda: service.health.tick("work"),
        )
        try:
            jobs = {
                "fences": heard.follow(settings.kafka, service.stopping),
                "work": run_worker(service, worker, consumer),
                "watch": watch(service, heard, consumer),
            }
            yield jobs | ({"registry": keep_current(service, registry)} if registry else {})
        finally:
            await publisher.close()


def _tools(
    service: Service[TransformSettings],
    stores: OpenStores,
    publisher: IdempotentPublisher,
    workers: ProcessWorkers,
    drops: Drops,
) -> Tools:
    version = transform_version()
    return Tools(
        stores=stores,
        plans=PlanFiles(),
        workers=workers,
        reporter=ProgressReporter(publisher, worker_name(), version, service.clock),
        fences=drops,
        limits=DEFAULT_LIMITS,
        version=version,
        alive_seconds=service.settings.work.alive_s,
    )


async def run_worker(service: Service[TransformSettings], worker: Worker, consumer: WorkConsumer) -> None:
    """Work until the service stops; then let items end their slice and answer before the group is left.

    A broker that does not answer holds neither up: it ends the membership by itself, and delivers the items again.
    """
    leave = asyncio.Event()
    consuming = asyncio.create_task(consumer.run(leave))
    stopping = asyncio.create_task(service.stopping.wait())
    try:
        while not (stopping.done() or consuming.done() or worker.failure):
            await asyncio.wait({consuming, stopping}, timeout=WATCH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        items_s, leave_s = grace_of(service.settings.ops.drain_grace_ms / 1000)
        await worker.stop(items_s)
        leave.set()
        await asyncio.wait({consuming}, timeout=leave_s)
        if consuming.done():
            consuming.result()
        else:
            log.warning("the group is not left in order: the broker does not answer")
    finally:
        await together.stop([stopping, consuming])
    if worker.failure is not None:
        raise worker.failure


def grace_of(seconds: float) -> tuple[float, float]:
    """Return how long items have to end their slices, and how long the group has to be left; a tenth is spare."""
    items_s = max(seconds - LEAVE_SECONDS, seconds / 2)
    return items_s, (seconds - items_s) * 0.9


async def watch(service: Service[TransformSettings], heard: HeardFences, consumer: WorkConsumer) -> None:
    """Keep `/readyz` true: Kafka answers, the fences are known and the group is joined."""
    health, going = service.health, True
    while going:
        await ask(health, "kafka", kafka_is_there(service.settings.kafka))
        for condition, met in (("fences", heard.ready.is_set()), ("group", consumer.joined)):
            if met:
                health.ok(condition)
            else:
                health.fail(condition, "not read to their end yet" if condition == "fences" else "not joined")
        going = await service.pause(WATCH_SECONDS)


def prefixes_of(source: RegistrySource) -> PrefixesOf:
    """Return what the registry says now of an agency's places; an agency that is not registered has none."""

    def found(agency_id: str) -> Prefixes:
        agency = source.trust.registry.agency(agency_id)
        return Prefixes(agency.source_prefixes, agency.destination_prefixes) if agency else Prefixes()

    return found


async def keep_current(service: Service[TransformSettings], source: RegistrySource) -> None:
    """Look at the registry now and then; one with a fault changes nothing."""
    while await service.pause(service.settings.agencies.refresh_ms / 1000):
        await look_again(source, service.clock.now())


def worker_name() -> str:
    """Return a name for this process in reports."""
    return re.sub(r"[^A-Za-z0-9._:-]", "-", f"{socket.gethostname()}:{getpid()}")[:128]
