"""Transform on a real Kafka, as members of one group in this process: churn, and a broker that is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from flux_common.contracts import catalogue
from flux_common.kafka import producing
from flux_common.kafka import publisher as publishing
from flux_common.kafka.publisher import IdempotentPublisher
from flux_common.kafka.work import WorkConsumer
from flux_common.kernel.clock import SystemClock
from flux_common.settings import KafkaSettings
from flux_transform.adapters.fences import HeardFences
from flux_transform.adapters.reporter import ProgressReporter
from flux_transform.domain.items import Job
from flux_transform.handlers import worker as module
from flux_transform.handlers.worker import Drops, Worker

from .conftest import GROUP, OpenDesk, Place, job_of, plan_of


@dataclass
class Member:
    """A worker and its consumer, in this process."""

    worker: Worker
    consumer: WorkConsumer
    running: asyncio.Task[None]
    leave: asyncio.Event

    async def stop(self) -> None:
        """Stop as the service does: items first, then the group."""
        await self.worker.stop(10)
        self.leave.set()
        await self.running


@pytest.fixture
def join(tmp_path: Path, make_driver: Callable[..., Any], no_workers: Any) -> Callable[..., Any]:
    """Return what runs a member of the group inside a block."""

    @asynccontextmanager
    async def joined(settings: KafkaSettings, job: Job) -> AsyncIterator[Member]:
        publisher, heard, clock = IdempotentPublisher(settings), HeardFences(), SystemClock()
        heard.ready.set()
        drops = Drops(heard.fenced)
        tools = make_driver(no_workers, job, [tmp_path]).tools
        tools = replace(tools, reporter=ProgressReporter(publisher, "worker", tools.version, clock))

        async def commit(offsets: Any) -> bool:
            return await consumer.commit(offsets)

        worker = Worker(tools, drops, places=2, ready=heard.ready, commit=commit, clock=clock)
        consumer = WorkConsumer(settings, group=GROUP, topic=catalogue.WORK.name, listener=worker, clock=clock)
        leave = asyncio.Event()
        member = Member(worker, consumer, asyncio.create_task(consumer.run(leave)), leave)
        try:
            yield member
        finally:
            await member.stop()
            await publisher.close()

    return joined


@pytest.mark.slow
async def test_workers_that_come_and_go_lose_no_item(
    kafka_bootstrap: str, desk: OpenDesk, join: Any, tmp_path: Path
) -> None:
    """Over four rebalances 200 items are answered, and at no moment is one committed that was not."""
    job = job_of(tmp_path)
    async with desk(kafka_bootstrap, session_timeout_ms=6000) as at:

        async def dispatch() -> None:
            for n in range(200):
                await at.dispatch(plan_of(f"r{n}", job))
                await asyncio.sleep(0.01)

        async def answered(share: int) -> None:
            await at.until(lambda: len(at.ends()) >= share)
            lost.append(await at.committed_unanswered())

        lost: list[set[Place]] = []
        dispatching = asyncio.create_task(dispatch())
        async with join(at.kafka, job) as first:
            await answered(20)
            async with join(at.kafka, job) as second:
                await answered(60)
                await first.stop()
                await answered(100)
                async with join(at.kafka, job):
                    await answered(140)
                    await second.stop()
                    await dispatching
                    await at.until(lambda: not at.unanswered())
            failures = [member.worker.failure for member in (first, second)]
        committed = await at.committed()

    assert lost == [set()] * 4
    assert failures == [None, None]
    assert set().union(*at.ends().values()) <= {("planned", None), ("failed", "DROPPED")}
    assert committed == {n: max(o for p, o in at.places if p == n) + 1 for n in {p for p, _ in at.places}}


@pytest.mark.slow
async def test_a_broker_that_is_killed_while_reports_are_sent_loses_none(
    fresh_kafka: Any, desk: OpenDesk, join: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL and a start: the items wait, each is answered under one event id, and all are committed."""
    monkeypatch.setattr(publishing, "SEND_SECONDS", 1.0)
    monkeypatch.setattr(producing, "CLOSE_SECONDS", 0.5)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.2)
    job, broker = job_of(tmp_path), await asyncio.to_thread(fresh_kafka)
    async with (
        desk(broker.bootstrap, session_timeout_ms=3000, request_timeout_ms=3000, metadata_max_age_ms=1000) as at,
        join(at.kafka, job) as member,
    ):
        for n in range(60):
            await at.dispatch(plan_of(f"r{n}", job))
        await at.until(lambda: len(at.ends()) >= 5)
        await asyncio.to_thread(broker.kill)
        await asyncio.sleep(1.5)
        await asyncio.to_thread(broker.start)
        await at.until(lambda: not at.unanswered())
        async with asyncio.timeout(30):
            while sum((await at.committed()).values()) < 60:  # noqa: ASYNC110 (the broker has no event for it)
                await asyncio.sleep(0.2)
        failure = member.worker.failure

    ids = {(body["run_id"], event_id) for kind, body, event_id in at.reports if kind == "planned"}
    assert failure is None
    assert len(ids) == 60
    assert set().union(*at.ends().values()) == {("planned", None)}
