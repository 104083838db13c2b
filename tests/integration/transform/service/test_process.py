"""Transform as a process on a real Kafka: kills, drains, a dead broker, what it waits for, and whose places are whose."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from flux_client.development import DevelopmentAgency, write_development_registry
from flux_common.contracts import catalogue
from flux_common.contracts.envelope import body_bytes
from flux_common.contracts.work import WorkFenced
from flux_devkit.services import Service, ServiceOptions
from flux_transform.domain.items import Item, Job

from .conftest import AGENCY, Desk, OpenDesk, job_of, plan_of

StartService = Callable[..., Any]


@pytest.fixture
def process(tmp_path: Path) -> StartService:
    """Return what runs the service as a process inside a block."""

    @asynccontextmanager
    async def run(at: Desk, *, wait: bool = True, **variables: str) -> AsyncIterator[Service]:
        env = {
            "FLUX_KAFKA_BOOTSTRAP": at.kafka.bootstrap,
            "FLUX_KAFKA_SESSION_TIMEOUT_MS": "1500",
            "FLUX_TOPIC_PREFIX": at.kafka.topic_prefix,
            "FLUX_STORE_FILE_ROOTS": str(tmp_path),
            "FLUX_WORK_PROCESSES": "2",
        } | variables
        service = Service(ServiceOptions("transform", "flux_transform", env), tmp_path)
        try:
            await asyncio.to_thread(service.start if wait else service.begin)
            yield service
        finally:
            await asyncio.to_thread(service.stop)

    return run


def extract_of(at: Desk, planned: Item) -> Item:
    """Return the extract item of a planned run's only partition."""
    body = next(body for kind, body, _ in at.reports if kind == "planned" and body["run_id"] == planned.run_id)
    return replace(
        planned, kind="extract", transform_version=body["transform_version"], plan_digest=body["plan_digest"],
        count=body["objects"], chain_head=body["plan_digest"],
    )  # fmt: skip


async def plan_and_dispatch(at: Desk, job: Job, count: int) -> list[Item]:
    """Plan runs and dispatch their extract items."""
    plans = [plan_of(f"long-{n}", job) for n in range(count)]
    for plan in plans:
        await at.dispatch(plan)
    await at.until(lambda: all(at.end(plan) for plan in plans))
    items = [extract_of(at, plan) for plan in plans]
    for item in items:
        await at.dispatch(item)
    return items


def sliced(at: Desk, item: Item) -> list[int]:
    """Return the seqs that were reported for an item, in order."""
    return [b["seq"] for kind, b, _ in at.reports if kind == "sliced" and b["run_id"] == item.run_id]


async def test_sigterm_ends_slices_says_dropped_leaves_the_group_and_exits_0(
    kafka_bootstrap: str, desk: OpenDesk, process: StartService, tmp_path: Path
) -> None:
    """What was begun has one last report with its last slice, and is committed; what waited is neither."""
    job = job_of(tmp_path, texts=2000)
    patient = {
        "FLUX_KAFKA_SESSION_TIMEOUT_MS": "10000"
    }  # a slow machine must not cost the membership, and so the commit
    async with desk(kafka_bootstrap) as at:
        async with process(at, FLUX_WORK_ITEMS_AT_ONCE="2", **patient) as service:
            items = await plan_and_dispatch(at, job, 4)
            await at.until(lambda: sum(bool(sliced(at, item)) for item in items) >= 2)
            status = await asyncio.to_thread(service.stop)
        members = await at.members()
        lost = await at.committed_unanswered()
        committed = sum((await at.committed()).values())
        log = (tmp_path / "transform.log").read_text()

    begun = [item for item in items if sliced(at, item)]
    ends = {body["run_id"]: body for kind, body, _ in at.reports if kind == "failed"}
    assert (status, members, lost) == (0, 0, set())
    assert [at.end(item) for item in begun] == [{("failed", "DROPPED")}] * 2
    assert [ends[item.run_id]["last_seq"] for item in begun] == [max(sliced(at, item)) for item in begun]
    assert [at.end(item) for item in items if item not in begun] == [set()] * 2
    assert committed == 4 + 2
    lines = [line for line in map(json.loads, log.splitlines()) if line["event"] == "item answered"]
    assert Counter(line["code"] for line in lines) == {None: 4, "DROPPED": 2}
    assert all(line["duration_ms"] >= 0 and line["run_id"] and line["trace_id"] for line in lines)


@pytest.mark.slow
async def test_a_killed_workers_items_are_delivered_again(
    kafka_bootstrap: str, desk: OpenDesk, process: StartService, tmp_path: Path
) -> None:
    """SIGKILL in the middle of two items: a new worker does them from their cursor, and every record is the same."""
    job = job_of(tmp_path, texts=350)
    async with desk(kafka_bootstrap) as at, process(at, FLUX_WORK_ITEMS_AT_ONCE="2") as service:
        items = await plan_and_dispatch(at, job, 3)
        await at.until(lambda: any(sliced(at, item) for item in items))
        await asyncio.to_thread(service.kill)
        lost = await at.committed_unanswered()
        again = at.unanswered()
        await asyncio.to_thread(service.start)
        await at.until(lambda: not at.unanswered())
        await at.until(lambda: all(at.end(item) for item in items))

    records = [(b["run_id"], b["seq"], json.dumps(b)) for kind, b, _ in at.reports if kind == "sliced"]
    assert lost == set()
    assert again
    assert [at.end(item) for item in items] == [{("finished", None)}] * 3
    assert {seq for _, seq, _ in records} == set(range(1, 7))
    assert len(set(records)) == 3 * 6


@pytest.mark.slow
async def test_a_process_that_is_told_to_stop_while_the_broker_is_dead_ends_in_order(
    fresh_kafka: Any, desk: OpenDesk, process: StartService, tmp_path: Path
) -> None:
    """Its reports are never acknowledged; it gives them up inside its grace and exits 0, with nothing committed."""
    job, broker = job_of(tmp_path, texts=3000), await asyncio.to_thread(fresh_kafka)
    async with desk(broker.bootstrap) as at:
        async with process(at, FLUX_OPS_DRAIN_GRACE_MS="5000") as service:
            await plan_and_dispatch(at, job, 2)
            await at.until(lambda: any(kind == "sliced" for kind, _, _ in at.reports))
            await asyncio.to_thread(broker.kill)
            status = await asyncio.to_thread(service.stop)
            log = service.log.read_text()
        await asyncio.to_thread(broker.start)
        lost = await at.committed_unanswered()

    assert status == 0
    assert "items given up" in log
    assert lost == set()


async def test_it_is_not_ready_and_takes_nothing_before_the_fences_are_known(
    kafka_bootstrap: str, desk: OpenDesk, process: StartService, tmp_path: Path
) -> None:
    """A fence in a transaction that is still open is waited for; then its item is dropped and never begun."""
    job = job_of(tmp_path)
    fenced, free = plan_of("fenced", job), plan_of("free", job)
    async with desk(kafka_bootstrap) as at:
        fence = WorkFenced(agency_id=AGENCY, run_id=fenced.run_id, kind="plan", number=0, term_min=2)
        writer = AIOKafkaProducer(
            bootstrap_servers=kafka_bootstrap, transactional_id=at.kafka.topic("fences"), transaction_timeout_ms=60_000
        )  # fmt: skip
        await writer.start()
        await writer.begin_transaction()
        await writer.send_and_wait(at.kafka.topic(catalogue.FENCES.name), body_bytes(fence), key=b"k")
        async with process(at, wait=False) as service:
            await at.dispatch(fenced)
            await at.dispatch(free)
            before = await _said_when_joined(service)
            await at.read()
            told_before = list(at.reports)
            await writer.commit_transaction()
            await writer.stop()
            await asyncio.to_thread(service.wait_ready)
            await at.until(lambda: not at.unanswered())

    assert before == {"fences": "not read to their end yet"}
    assert told_before == []
    assert at.end(fenced) == {("failed", "DROPPED")}
    assert at.end(free) == {("planned", None)}
    assert [body["run_id"] for kind, body, _ in at.reports if kind == "started"] == [free.run_id]


async def _said_when_joined(service: Service) -> dict[str, str]:
    """Return why `/readyz` says no, once it is not for the group or for being put together."""

    def ask() -> dict[str, str]:
        try:
            urllib.request.urlopen(service.url("/readyz"), timeout=2)
        except urllib.error.HTTPError as answer:
            found: dict[str, str] = json.loads(answer.read())["why"]
            return found
        except OSError:
            return {"port": "not open yet"}
        return {}

    async with asyncio.timeout(40):
        while not set(why := await asyncio.to_thread(ask)) <= {"fences"}:  # noqa: ASYNC110 (a probe is asked)
            await asyncio.sleep(0.05)
    return why


async def test_an_agency_is_bound_to_its_own_places_in_the_worker_too(
    kafka_bootstrap: str, desk: OpenDesk, process: StartService, tmp_path: Path
) -> None:
    """All lie below the file roots; the registry says whose is whose, also when it is changed while the worker runs."""
    nasa, loc = DevelopmentAgency("nasa", "NASA"), DevelopmentAgency("loc", "Library")
    jobs = {}
    for agency in ("nasa", "loc"):
        job = job_of(tmp_path / agency)
        jobs[agency] = replace(
            job,
            source_uri=f"{(tmp_path / 'archives' / agency).as_uri()}/",
            destination_uri=f"{(tmp_path / 'datasets' / agency).as_uri()}/",
        )
        (tmp_path / agency / "in").rename(_made(tmp_path / "archives") / agency)
    registry = write_development_registry(tmp_path / "keys", (nasa,))
    own = plan_of("own", jobs["nasa"], "nasa")
    foreign_source = plan_of("source", replace(jobs["nasa"], source_uri=jobs["loc"].source_uri), "nasa")
    foreign_destination = plan_of("out", replace(jobs["nasa"], destination_uri=jobs["loc"].destination_uri), "nasa")
    early, late = plan_of("early", jobs["loc"], "loc"), plan_of("late", jobs["loc"], "loc")
    variables = {"FLUX_AGENCIES_FILE": str(registry), "FLUX_AGENCIES_REFRESH_MS": "100"}
    async with desk(kafka_bootstrap) as at, process(at, **variables) as service:
        for item in (own, foreign_source, foreign_destination, early):
            await at.dispatch(item)
        await at.until(lambda: not at.unanswered())
        write_development_registry(tmp_path / "keys", (nasa, loc))
        await at.until(lambda: "agency registry reloaded" in service.log.read_text())
        await at.dispatch(late)
        await at.until(lambda: not at.unanswered())

    refused = {("failed", "SOURCE_NOT_ALLOWED")}
    assert at.end(own) == at.end(late) == {("planned", None)}
    assert [at.end(item) for item in (foreign_source, foreign_destination, early)] == [refused] * 3
    assert not (tmp_path / "datasets" / "loc" / foreign_destination.run_id).exists()


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder
