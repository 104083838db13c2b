"""Checkpoint's handlers on one real database: records as the lanes would hand them over, no Kafka.

Whatever checkpoint writes for others is read from its outbox; what ingest and the workers say is written here. When a
test is done, the invariants that must hold at every moment are asked of its tables and of all that it ever published.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from flux_checkpoint.adapters.dispatcher import Leases, PostgresDispatch
from flux_checkpoint.adapters.runs import PostgresRuns
from flux_checkpoint.domain.dispatch import Patience
from flux_checkpoint.handlers.admissions import AdmissionsHandler
from flux_checkpoint.handlers.dispatcher import Dispatcher, Rooms
from flux_checkpoint.handlers.reports import ReportsHandler
from flux_common.contracts import catalogue
from flux_common.kernel.errors import FluxError, InvalidMessage, RunBroken
from flux_common.kernel.ids import shard_of
from flux_common.kernel.positions import Lane, LaneBatch, Received, TopicPartition
from flux_common.kernel.signals import Signal
from flux_common.postgres.database import Database
from flux_common.postgres.lanes import PostgresLanes
from flux_common.postgres.queries import Queries
from flux_common.postgres.sqlstates import Contended
from flux_devkit.plugin import Database as TestDatabase

from .records import AGENCY, NOW, Written, admitted, answer

AGENCIES = (AGENCY, "esa")
SQL = Queries.parse(Path(__file__).with_name("invariants.sql").read_text())


def brief(attempt: int) -> timedelta:
    """Let nobody wait for another attempt."""
    return timedelta(0)


@dataclass(frozen=True)
class Told:
    """One event of the outbox."""

    topic: str
    agency_id: str
    key: str | None
    headers: dict[str, str]
    value: bytes

    @property
    def body(self) -> dict[str, Any]:
        """Return its value as JSON."""
        body: dict[str, Any] = json.loads(self.value)
        return body

    @property
    def type(self) -> str:
        """Return its ce_type."""
        return self.headers["ce_type"]


@dataclass
class Bench:
    """Checkpoint's handlers on one database, with a hand that plays ingest and the workers."""

    database: Database
    admin_dsn: str
    lanes: PostgresLanes
    patience: Patience = field(default_factory=Patience)
    run_ttl: timedelta = timedelta(days=30)
    stamp: datetime = NOW
    taken: dict[str, Lane] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    unread: list[Told] = field(default_factory=list)
    tampered: bool = False

    # Lanes.

    async def feed(self, topic: str, records: Sequence[Written]) -> None:
        """Apply records as one batch of the topic's lane 0, as the loop would: halved until a refused one stands alone."""
        lane = self.taken.get(topic) or await self.lanes.take(
            TopicPartition(topic, 0), topic_id="id", log_start=0, log_end=10**6
        )
        received = [
            Received(lane.tp.at(lane.next_offset + i), b"k", value, tuple(headers), self.stamp)
            for i, (headers, value) in enumerate(records)
        ]
        if received:
            await self._advance(lane, received)
        self.taken[topic] = replace(lane, next_offset=lane.next_offset + len(records))

    async def _advance(self, lane: Lane, records: list[Received]) -> None:
        batch = LaneBatch(
            replace(lane, next_offset=records[0].position.offset), records, records[-1].position.offset + 1
        )
        handler = self.handler(lane.tp.topic)
        try:
            await handler.apply(batch)
        except (InvalidMessage, RunBroken) as problem:
            if len(records) == 1:
                await handler.refuse(batch, problem)
                return
            middle = len(records) // 2
            await self._advance(lane, records[:middle])
            await self._advance(lane, records[middle:])

    async def runs(self, *records: Written) -> None:
        """Apply records of the runs lane."""
        await self.feed(catalogue.RUNS.name, records)

    async def reports(self, *records: Written) -> None:
        """Apply records of the progress lane."""
        await self.feed(catalogue.PROGRESS.name, records)

    def handler(self, topic: str) -> Any:
        """Return the handler of a topic."""
        if topic == catalogue.RUNS.name:
            return AdmissionsHandler(self.lanes, PostgresRuns, self.run_ttl, Signal())
        return ReportsHandler(self.lanes, PostgresRuns, brief, Signal())

    # The dispatcher.

    def dispatcher(
        self, agency: str = AGENCY, *, holder: str = "bench", lease: float = 6.0
    ) -> tuple[Any, asyncio.Event]:
        """Return a dispatcher of the agency's shard, and what wakes it."""
        wake = asyncio.Event()
        rooms = Rooms(
            PostgresRuns, lambda c: PostgresDispatch(c, self.patience), lambda _agency: timedelta(days=1), brief
        )
        leases = Leases(self.database, holder, lease)
        return Dispatcher(self.database, leases, shard_of(agency), rooms, wake, Signal()), wake

    async def dispatch(self, *agencies: str) -> None:
        """Let the agencies' dispatchers work until nothing is due."""
        for agency in agencies or (AGENCY,):
            dispatcher, wake = self.dispatcher(agency)
            stopping = asyncio.Event()
            task = asyncio.create_task(dispatcher.run(stopping))
            async with asyncio.timeout(60):
                while await self.due(agency) and not task.done():
                    await asyncio.wait([task], timeout=0.005)
            stopping.set()
            wake.set()
            await task

    async def due(self, agency: str) -> int:
        """Return how many runs of the agency's shard want looking at now."""
        row = await self.row("SELECT count(*) FROM agenda WHERE due_at <= now() AND shard = $1", shard_of(agency))
        return int(row[0])

    async def look(self, *agencies: str) -> None:
        """Let the dispatchers look at every open run now, whatever the agenda says."""
        await self.execute("UPDATE agenda SET due_at = now()")
        await self.dispatch(*agencies)

    # What was written.

    async def drain(self) -> None:
        """Take everything out of the outbox, as the relays would."""
        async with self.database.transaction() as connection:
            rows = await connection.fetch("DELETE FROM outbox RETURNING *")
        for row in sorted(rows, key=lambda row: row["id"]):
            headers = dict(json.loads(row["headers"]))
            one = Told(row["topic"], row["agency_id"], row["key"], headers, row["value"])
            self.told.append(one)
            self.unread.append(one)

    async def events(self, ce_type: str) -> list[Told]:
        """Return the events of one type that were written since the last look."""
        await self.drain()
        found = [one for one in self.unread if one.type == ce_type]
        self.unread = [one for one in self.unread if one.type != ce_type]
        return found

    async def outbox(self, ce_type: str) -> list[dict[str, Any]]:
        """Return the bodies of one type that were written since the last look."""
        return [one.body for one in await self.events(ce_type)]

    async def work(self) -> list[dict[str, Any]]:
        """Return the work dispatched since the last look."""
        return await self.outbox(catalogue.WORK_DISPATCHED.ce_type)

    async def facts(self, type_: str) -> list[dict[str, Any]]:
        """Return every audit fact of one type that was ever written."""
        await self.drain()
        named = [one.body for one in self.told if one.type == catalogue.AUDIT_FACT.ce_type]
        return [body for body in named if body["type"] == type_]

    # Tables.

    async def row(self, sql: str, *args: Any) -> Any:
        """Return one row, as checkpoint's role sees it for the agencies of these tests."""
        async with self.database.transaction(AGENCIES) as connection:
            return await connection.fetchrow(sql, *args)

    async def rows(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        """Return rows."""
        async with self.database.transaction(AGENCIES) as connection:
            return [tuple(row) for row in await connection.fetch(sql, *args)]

    async def execute(self, sql: str, *args: Any) -> None:
        """Change what checkpoint's role may change; a test's statement takes locks in no order, so it may have to wait."""
        for _ in range(20):
            try:
                async with self.database.transaction(AGENCIES) as connection:
                    await connection.execute(sql, *args)
                return
            except Contended:
                await asyncio.sleep(0.05)
        raise AssertionError(f"always contended: {sql}")

    async def tamper(self, sql: str, *args: Any) -> None:
        """Change what only a superuser may change."""
        self.tampered = True
        connection = await asyncpg.connect(self.admin_dsn)
        try:
            await connection.execute(sql, *args)
        finally:
            await connection.close()

    async def ledger(self) -> tuple[int, int, int, int]:
        """Return how many records were effects, duplicates, fenced and dead letters."""
        row = await self.row(
            "SELECT coalesce(sum(effects), 0)::int, coalesce(sum(duplicates), 0)::int, coalesce(sum(fenced), 0)::int,"
            " coalesce(sum(dead_letters), 0)::int FROM ledger"
        )
        return tuple(row)

    async def letters(self) -> list[tuple[Any, ...]]:
        """Return agency and code of each dead letter, in order."""
        return await self.rows("SELECT agency_id, code FROM dead_letters ORDER BY topic DESC, kafka_offset")

    # What must hold at every moment.

    async def check(self) -> None:
        """Ask I3, I6, I8 and I9 of the tables, and of everything that was ever published."""
        await self.drain()
        ids = Counter((one.topic, one.headers["ce_id"]) for one in self.told)
        assert [one for one, times in ids.items() if times > 1] == [], "an event was written twice"
        for name in () if self.tampered else ("i3_chains", "i6_ends", "i8_ledger", "i9_counts", "windows"):
            assert [dict(row) for row in await self._faults(name)] == [], name
        assert await self._ends_told() == await self._ends_in_rows()

    async def _faults(self, name: str) -> list[Any]:
        async with self.database.transaction(AGENCIES) as connection:
            return await connection.fetch(SQL[name])

    async def _ends_in_rows(self) -> list[tuple[str, int]]:
        rows = await self.rows("SELECT run_id, n FROM flux.runs, generate_series(1, terminal_attempt) n")
        return sorted((str(run), n) for run, n in rows)

    async def _ends_told(self) -> list[tuple[str, int]]:
        ends = {spec.ce_type for spec in (catalogue.RUN_COMPLETED, catalogue.RUN_FAILED, catalogue.RUN_CANCELLED)}
        return sorted((one.body["run_id"], one.body["run_attempt"]) for one in self.told if one.type in ends)


@pytest.fixture
async def bench(checkpoint_database: Database, database: TestDatabase) -> AsyncIterator[Bench]:
    """A bench on a database of the test's own; its invariants are asked when the test is done."""
    made = Bench(checkpoint_database, database.dsn, PostgresLanes(checkpoint_database, "checkpoint"))
    yield made
    await made.check()


async def planned(bench: Bench, partitions: list[int], request_id: str = "r-1", **changes: Any) -> list[dict[str, Any]]:
    """Admit and plan a run; return its dispatched extract items."""
    await bench.runs(admitted(request_id, **changes))
    agency = changes.get("agency", AGENCY)
    await bench.dispatch(agency)
    (plan,) = await bench.work()
    await bench.reports(*answer(plan, partitions))
    await bench.dispatch(agency)
    return await bench.work()


async def to_the_end(bench: Bench, partitions: list[int], *agencies: str) -> None:
    """Let honest workers do whatever is dispatched until nothing is."""
    await bench.dispatch(*agencies)
    while items := await bench.work():
        await bench.reports(*(one for work in items for one in answer(work, partitions)))
        await bench.dispatch(*agencies)


async def refusing(bench: Bench, topic: str, one: Written, problem: FluxError) -> None:
    """Hand one record to the handler's `refuse`, as the loop does after the database refused it."""
    lane = bench.taken[topic]
    received = Received(lane.tp.at(lane.next_offset), b"k", one[1], tuple(one[0]), bench.stamp)
    await bench.handler(topic).refuse(LaneBatch(lane, [received], lane.next_offset + 1), problem)
    bench.taken[topic] = replace(lane, next_offset=lane.next_offset + 1)
