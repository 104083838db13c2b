"""A run's life in checkpoint alone: real PostgreSQL, records as the lanes would hand them over, no Kafka.

Whatever the dispatcher writes for workers is read from the outbox; the answers are written as records of the progress lane.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from flux_checkpoint.adapters.dispatcher import Leases, PostgresDispatch
from flux_checkpoint.adapters.runs import PostgresRuns
from flux_checkpoint.domain.dispatch import Patience
from flux_checkpoint.handlers.admissions import AdmissionsHandler
from flux_checkpoint.handlers.dispatcher import Dispatcher, Rooms
from flux_checkpoint.handlers.reports import ReportsHandler
from flux_common.contracts import catalogue, progress, runs
from flux_common.contracts.canonical import encode
from flux_common.contracts.catalogue import EventSpec
from flux_common.contracts.envelope import body_bytes, headers_for
from flux_common.contracts.requests import RunRequested
from flux_common.contracts.types import Event
from flux_common.kernel.errors import Fenced
from flux_common.kernel.ids import run_id, sha256_hex, shard_of
from flux_common.kernel.positions import Lane, LaneBatch, Received, TopicPartition
from flux_common.kernel.signals import Signal
from flux_common.postgres.database import Database
from flux_common.postgres.lanes import PostgresLanes

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AGENCY = "nasa"
RUN = str(run_id(AGENCY, "r-1"))
PLAN = "ab" * 32


def brief(attempt: int) -> timedelta:
    return timedelta(0)


@dataclass
class Bench:
    """Checkpoint's handlers on one database, with a hand that plays ingest and the workers."""

    database: Database
    lanes: PostgresLanes
    taken: dict[str, Lane] = field(default_factory=dict)

    async def feed(self, topic: str, records: list[tuple[list[tuple[str, bytes]], bytes]]) -> None:
        """Apply records as one batch of the topic's lane 0."""
        lane = self.taken.get(topic) or await self.lanes.take(
            TopicPartition(topic, 0), topic_id="id", log_start=0, log_end=10**6
        )
        received = [
            Received(lane.tp.at(lane.next_offset + i), b"k", value, tuple(headers), NOW)
            for i, (headers, value) in enumerate(records)
        ]
        batch = LaneBatch(lane, received, lane.next_offset + len(records))
        await self.handler(topic).apply(batch)
        self.taken[topic] = Lane(lane.consumer, lane.tp, lane.topic_id, lane.owner_epoch, batch.end_offset)

    def handler(self, topic: str) -> Any:
        if topic == catalogue.RUNS.name:
            return AdmissionsHandler(self.lanes, PostgresRuns, timedelta(days=30), Signal())
        return ReportsHandler(self.lanes, PostgresRuns, brief, Signal())

    async def dispatch(self) -> None:
        """Let the agency's dispatcher work until nothing is due."""
        dispatcher = Dispatcher(
            self.database,
            Leases(self.database, "bench"),
            shard_of(AGENCY),
            Rooms(PostgresRuns, lambda c: PostgresDispatch(c, Patience()), timedelta(days=1), brief),
            asyncio.Event(),
            Signal(),
        )
        stopping = asyncio.Event()
        task = asyncio.create_task(dispatcher.run(stopping))
        async with asyncio.timeout(20):
            while (await self.row("SELECT count(*) FROM agenda WHERE due_at <= now()"))[0]:
                await asyncio.sleep(0.02)
        stopping.set()
        await task

    async def outbox(self, ce_type: str) -> list[dict[str, Any]]:
        """Return and forget the bodies of one type that were written since the last look."""
        async with self.database.transaction() as connection:
            rows = await connection.fetch("SELECT headers, value FROM outbox ORDER BY id")
            bodies = [json.loads(row["value"]) for row in rows if f'"{ce_type}"' in row["headers"]]
            await connection.execute("DELETE FROM outbox WHERE headers::text LIKE $1", f'%"{ce_type}"%')
        return bodies

    async def row(self, sql: str, *args: Any) -> Any:
        async with self.database.transaction([AGENCY]) as connection:
            return await connection.fetchrow(sql, *args)


def record(spec: EventSpec, body: Event, **more: Any) -> tuple[list[tuple[str, bytes]], bytes]:
    return headers_for(spec, event_id=str(UUID(int=7)), source="t", at=NOW, **more), body_bytes(body)


def admitted() -> tuple[list[tuple[str, bytes]], bytes]:
    request = RunRequested.model_validate(
        {
            "request_id": "r-1",
            "source": {"uri": "file:///a/"},
            "destination": {"uri": "file:///b/"},
            "content_type": "text",
            "use_case": "research",
        }
    )
    return record(
        catalogue.RUN_ADMITTED,
        runs.RunAdmitted(
            agency_id=AGENCY,
            request_id="r-1",
            run_id=RUN,
            request=request,
            request_sha256="cd" * 32,
            run_window=32,
            agency_window=128,
            admitted_at="2026-01-01T00:00:00.000Z",
        ),
    )


def command(name: Any, command_id: str) -> tuple[list[tuple[str, bytes]], bytes]:
    body = runs.CommandAdmitted(
        agency_id=AGENCY, request_id="r-1", run_id=RUN, command_id=command_id, command=name, reason="test"
    )
    return record(catalogue.COMMAND_ADMITTED, body)


def report(work: dict[str, Any], spec: EventSpec, **more: Any) -> tuple[list[tuple[str, bytes]], bytes]:
    named = {key: work[key] for key in ("agency_id", "run_id", "kind", "number", "term")} | {"worker": "w"}
    return record(spec, spec.model.model_validate(named | more))


def a_slice(work: dict[str, Any], seq: int, prev: str, cursor: int, read: int) -> tuple[Any, str]:
    body = {
        "v": 1, "agency_id": AGENCY, "run_id": RUN, "partition": work["number"], "seq": seq, "prev": prev,
        "cursor": cursor, "read": read, "written": read - 1, "rejected": 1, "bytes_in": 10, "bytes_out": 5,
        "inputs_digest": "ef" * 32, "outputs": [], "rejects": [{"code": "OBJECT_CORRUPT", "count": 1}],
    }  # fmt: skip
    value = encode(progress.SliceRecord.model_validate(body).model_dump())
    headers = headers_for(
        catalogue.SLICED,
        event_id=str(UUID(int=seq)),
        source="t",
        at=NOW,
        subject=f"{RUN}/extract/{work['number']}",
        extensions={"ce_fluxterm": str(work["term"]), "ce_fluxseq": str(seq)},
    )
    return (headers, value), sha256_hex(value)


@pytest.fixture
async def bench(checkpoint_database: Database) -> Bench:
    return Bench(checkpoint_database, PostgresLanes(checkpoint_database, "checkpoint"))


async def planned(bench: Bench, partitions: list[int]) -> list[dict[str, Any]]:
    """Admit and plan a run; return its dispatched extract items."""
    await bench.feed(catalogue.RUNS.name, [admitted()])
    await bench.dispatch()
    (plan,) = await bench.outbox("flux.work.dispatched.v1")
    await bench.feed(
        catalogue.PROGRESS.name,
        [
            report(plan, catalogue.STARTED, transform_version="v1"),
            report(
                plan, catalogue.PLANNED, plan_digest=PLAN, objects=sum(partitions), bytes=99, partitions=partitions,
                transform_version="v1",
            ),
        ],
    )  # fmt: skip
    await bench.dispatch()
    return await bench.outbox("flux.work.dispatched.v1")


async def test_a_run_goes_from_admission_to_completion(bench: Bench) -> None:
    """Every hop that checkpoint owns, with the counts and digests that the completion is proof of."""
    extracts = await planned(bench, [6, 4])
    assert [(w["kind"], w["number"], w["range"]) for w in extracts] == [
        ("extract", 0, {"first": 0, "count": 6}),
        ("extract", 1, {"first": 6, "count": 4}),
    ]
    heads = []
    for work in extracts:
        count = work["range"]["count"]
        one, head = a_slice(work, 1, PLAN, 2, 2)
        two, last = a_slice(work, 2, head, count, count - 2)
        done = report(work, catalogue.FINISHED, last_seq=2, head=last)
        await bench.feed(catalogue.PROGRESS.name, [one, two, two, done, done])
        heads.append(last)
    await bench.dispatch()
    (gather,) = await bench.outbox("flux.work.dispatched.v1")
    assert [head["head"] for head in gather["heads"]] == heads
    await bench.feed(catalogue.PROGRESS.name, [report(gather, catalogue.FINISHED, last_seq=0, result_digest="11" * 32)])
    await bench.dispatch()
    (finalize,) = await bench.outbox("flux.work.dispatched.v1")
    assert finalize["indexes"] == [{"number": 0, "index_digest": "11" * 32}]
    await bench.feed(
        catalogue.PROGRESS.name,
        [
            report(
                finalize, catalogue.FINISHED, last_seq=0, result_digest="22" * 32, manifest_uri="file:///b/m.json",
                files=3, rows=8,
            )
        ],
    )  # fmt: skip
    await bench.dispatch()
    (completed,) = await bench.outbox("flux.run.completed.v1")

    assert completed["counts"] == {"read": 10, "written": 6, "rejected": 4, "bytes_in": 40, "bytes_out": 20}
    assert completed["rejects_by_code"] == {"OBJECT_CORRUPT": 4}
    assert completed["manifest"] == {"uri": "file:///b/m.json", "sha256": "22" * 32, "files": 3, "rows": 8}
    run = await bench.row("SELECT state, read, terminal_attempt FROM flux.runs")
    assert tuple(run) == ("COMPLETED", 10, 1)
    faults = await bench.row(
        "SELECT count(*) FROM flux.verify_chain($1, $2) WHERE fault IS NOT NULL", AGENCY, UUID(RUN)
    )
    assert faults[0] == 0
    ledger = await bench.row("SELECT sum(effects), sum(duplicates), sum(fenced), sum(dead_letters) FROM ledger")
    assert tuple(ledger) == (11, 4, 0, 0)


async def test_a_broken_chain_is_put_aside_and_resumed_from_the_stored_head(bench: Bench) -> None:
    """Question 8 on the rows: dead letter, fence, term and attempt raised, and work dispatched from the head."""
    (work,) = await planned(bench, [6])
    one, head = a_slice(work, 1, PLAN, 2, 2)
    gap, _ = a_slice(work, 3, head, 6, 2)
    await bench.feed(catalogue.PROGRESS.name, [one, gap])
    fences = await bench.outbox("flux.work.fenced.v1")
    await bench.dispatch()
    (again,) = await bench.outbox("flux.work.dispatched.v1")

    assert (again["term"], again["next_seq"], again["cursor"], again["chain_head"]) == (2, 2, 2, head)
    assert [(fence["kind"], fence["term_min"]) for fence in fences] == [("extract", 2)]
    letters = await bench.row("SELECT count(*), min(code) FROM dead_letters")
    assert tuple(letters) == (1, "CHAIN_BROKEN")


async def test_a_record_that_contradicts_its_headers_fails_its_run(bench: Bench) -> None:
    """RunBroken: the worker that writes such a record is not believed any more."""
    (work,) = await planned(bench, [6])
    (headers, value), _ = a_slice(work, 1, PLAN, 2, 2)
    forged = [(n, b"9" if n == "ce_fluxseq" else v) for n, v in headers]
    await bench.feed(catalogue.PROGRESS.name, [(forged, value)])
    await bench.dispatch()
    (failed,) = await bench.outbox("flux.run.failed.v1")

    assert (failed["cause"], failed["code"]) == ("transform", "RECORD_INVALID")


async def test_a_failed_run_can_be_retried_and_keeps_what_is_finished(bench: Bench) -> None:
    """retry: attempt 2, the finished partition stays, the failed one starts with attempts anew."""
    first, second = await planned(bench, [2, 2])
    done, head = a_slice(first, 1, PLAN, 2, 2)
    lost = report(second, catalogue.FAILED, last_seq=0, code="SOURCE_MISSING", cause="input", transient=False)
    await bench.feed(catalogue.PROGRESS.name, [done, report(first, catalogue.FINISHED, last_seq=1, head=head), lost])
    await bench.dispatch()
    (failed,) = await bench.outbox("flux.run.failed.v1")
    await bench.feed(catalogue.RUNS.name, [command("retry", "c-1"), command("retry", "c-2")])
    applied = await bench.outbox("flux.run.command-applied.v1")
    refused = await bench.outbox("flux.run.command-refused.v1")
    await bench.dispatch()
    (again,) = await bench.outbox("flux.work.dispatched.v1")

    assert (failed["run_attempt"], failed["code"]) == (1, "SOURCE_MISSING")
    assert ([c["command_id"] for c in applied], [c["code"] for c in refused]) == (["c-1"], ["RUN_STATE"])
    assert (again["number"], again["run_attempt"], again["term"], again["attempt"]) == (1, 2, 2, 0)


async def test_pause_recalls_what_nobody_started_and_resume_sends_it_out_again(bench: Bench) -> None:
    """A paused run keeps its started items and nothing else in hand."""
    started, queued = await planned(bench, [2, 2])
    await bench.feed(catalogue.PROGRESS.name, [report(started, catalogue.STARTED, transform_version="v1")])
    await bench.feed(catalogue.RUNS.name, [command("pause", "c-1")])
    await bench.dispatch()
    states = await bench.row("SELECT array_agg(state ORDER BY number) FROM flux.checkpoints WHERE kind = 'extract'")
    nothing = await bench.outbox("flux.work.dispatched.v1")
    await bench.feed(catalogue.RUNS.name, [command("resume", "c-2")])
    await bench.dispatch()
    (again,) = await bench.outbox("flux.work.dispatched.v1")

    assert (states[0], nothing) == (["RUNNING", "PENDING"], [])
    assert (again["number"], again["term"]) == (queued["number"], 2)


async def test_cancel_waits_for_the_started_item_and_ends_once(bench: Bench) -> None:
    """CANCELLING fences the run; the dropped item's answer lets it end; later reports are fenced."""
    (work,) = await planned(bench, [2])
    await bench.feed(catalogue.PROGRESS.name, [report(work, catalogue.STARTED, transform_version="v1")])
    await bench.feed(catalogue.RUNS.name, [command("cancel", "c-1")])
    await bench.dispatch()
    early = await bench.outbox("flux.run.cancelled.v1")
    dropped = report(work, catalogue.FAILED, last_seq=0, code="DROPPED", cause="policy", transient=True)
    await bench.feed(catalogue.PROGRESS.name, [dropped])
    await bench.dispatch()
    ended = await bench.outbox("flux.run.cancelled.v1")
    await bench.feed(catalogue.PROGRESS.name, [dropped])

    assert (early, [event["command_id"] for event in ended]) == ([], ["c-1"])
    fenced = await bench.row("SELECT sum(fenced) FROM ledger")
    assert fenced[0] == 1


async def test_a_stale_owner_changes_nothing(bench: Bench) -> None:
    """I2: after somebody else took the lane, an Advance under the old epoch raises and leaves no trace."""
    await bench.feed(catalogue.RUNS.name, [admitted()])
    await bench.lanes.take(TopicPartition(catalogue.RUNS.name, 0), topic_id="id", log_start=0, log_end=9)
    before = await bench.row("SELECT count(*) FROM outbox")

    with pytest.raises(Fenced):
        await bench.feed(catalogue.RUNS.name, [command("cancel", "c-9")])
    after = await bench.row("SELECT count(*) FROM outbox")
    assert before == after
