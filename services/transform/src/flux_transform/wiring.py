"""Putting transform together: a work consumer, the fences, the decoder processes and the reporter."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from os import getpid

from flux_common.contracts import catalogue
from flux_common.kafka.publisher import IdempotentPublisher
from flux_common.kafka.work import WorkConsumer
from flux_common.runtime.service import Jobs, Service
from flux_common.runtime.waiting import kafka_answers, topics_exist, wait_for
from flux_transform.adapters.fences import HeardFences
from flux_transform.adapters.plan_file import PlanFiles
from flux_transform.adapters.reporter import ProgressReporter
from flux_transform.adapters.store import Access, OpenStores
from flux_transform.adapters.workers import ProcessWorkers
from flux_transform.domain.limits import DEFAULT_LIMITS
from flux_transform.handlers.tools import Tools
from flux_transform.handlers.worker import Drops, Worker
from flux_transform.settings import TransformSettings
from flux_transform.version import transform_version

TOPICS = (catalogue.WORK.name, catalogue.FENCES.name, catalogue.PROGRESS.name)
WATCH_SECONDS = 1.0


@asynccontextmanager
async def build(service: Service[TransformSettings]) -> AsyncIterator[Jobs]:
    """Open what transform needs and yield its loops."""
    settings = service.settings
    await wait_for(service.health, "kafka", kafka_answers(settings.kafka))
    await wait_for(service.health, "topics", topics_exist(settings.kafka, TOPICS))
    publisher, heard = IdempotentPublisher(settings.kafka), HeardFences()
    async with ProcessWorkers(settings.work.decoders(), DEFAULT_LIMITS) as workers:
        drops = Drops(heard.fenced)
        worker = Worker(
            _tools(service, publisher, workers, drops),
            drops,
            places=settings.work.places(),
            ready=heard.ready,
            commit=lambda offsets: consumer.commit(offsets),
        )
        consumer = WorkConsumer(
            settings.kafka,
            group="flux-transform-work",
            topic=catalogue.WORK.name,
            listener=worker,
            clock=service.clock,
            on_tick=lambda: service.health.tick("work"),
        )
        try:
            yield {
                "fences": heard.follow(settings.kafka, service.stopping),
                "work": run_worker(service, worker, consumer),
                "watch": watch(service, heard, consumer),
            }
        finally:
            await publisher.close()


def _tools(
    service: Service[TransformSettings], publisher: IdempotentPublisher, workers: ProcessWorkers, drops: Drops
) -> Tools:
    version = transform_version()
    return Tools(
        stores=OpenStores(Access(file_roots=service.settings.store.roots())),
        plans=PlanFiles(),
        workers=workers,
        reporter=ProgressReporter(publisher, worker_name(), version, service.clock),
        fences=drops,
        limits=DEFAULT_LIMITS,
        version=version,
        alive_seconds=service.settings.work.alive_s,
    )


async def run_worker(service: Service[TransformSettings], worker: Worker, consumer: WorkConsumer) -> None:
    """Work until the service stops; then let items end their slice and answer before the group is left."""
    leave = asyncio.Event()
    consuming = asyncio.create_task(consumer.run(leave))
    stopping = asyncio.create_task(service.stopping.wait())
    while not (stopping.done() or consuming.done() or worker.failure):
        await asyncio.wait({consuming, stopping}, timeout=WATCH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    await worker.stop()
    leave.set()
    await consuming
    if worker.failure is not None:
        raise worker.failure


async def watch(service: Service[TransformSettings], heard: HeardFences, consumer: WorkConsumer) -> None:
    """Keep `/readyz` true: the fences are known and the group is joined."""
    going = True
    while going:
        if heard.ready.is_set() and consumer.started:
            service.health.ok("group")
        else:
            service.health.fail("group", "fences not read yet" if consumer.started else "consumer not started")
        going = await service.pause(WATCH_SECONDS)


def worker_name() -> str:
    """Return a name for this process in reports."""
    return re.sub(r"[^A-Za-z0-9._:-]", "-", f"{socket.gethostname()}:{getpid()}")[:128]
