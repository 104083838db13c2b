"""The dispatcher: one per shard, by lease. It moves runs onward, hands out work, and ends runs.

Theory. Every decision is derived from rows, under the lock of the run's row and of the shard's lease, in one transaction with
its events; so a dispatcher may die anywhere and its successor decides the same again. Which runs want looking at stands in
the agenda, an index over the runs; a sweep mends what it forgot, counts it, and must find nothing.

| state | on | next |
|---|---|---|
| waiting | lease free or ours | dispatching, under its term |
| dispatching | a run is due | one pass over it; again while it changed something |
| dispatching | a run cannot be worked: its own values are refused | it fails; the others go on |
| dispatching | the lease has another term (`Fenced`) | waiting |
| dispatching | PostgreSQL does not answer | waiting, after a pause |
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

import structlog

from flux_checkpoint.domain.dispatch import Cancel, Complete, Facts, Fail, Move, Pass, Work, decide
from flux_checkpoint.domain.judge import Backoff, spend_attempt
from flux_checkpoint.domain.model import Cause, Item, Run, RunKey
from flux_checkpoint.domain.states import TERMINAL, ItemState, RunState, may_move
from flux_checkpoint.handlers.admissions import run_fence
from flux_checkpoint.handlers.endings import Endings
from flux_checkpoint.handlers.figures import count_end, count_pass
from flux_checkpoint.handlers.reports import EMITTER, item_fence
from flux_checkpoint.handlers.workitems import work_item
from flux_checkpoint.ports import DispatchStore, DispatchStores, HistoryRow, LeaseStore, RunStore, RunStores
from flux_common.contracts.envelope import Outgoing
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Fenced, InvalidMessage, InvariantBroken, RunBroken, Unavailable
from flux_common.kernel.ids import derived_id
from flux_common.kernel.signals import Signal, pause
from flux_common.observability import metrics
from flux_common.observability.tracing import step_span
from flux_common.postgres.database import Connection, Database
from flux_common.postgres.outbox import insert_outbox

log = structlog.get_logger(__name__)

RUNS_A_ROUND = 64
POLL_SECONDS = 0.25
SWEEP_SECONDS = 60.0
RENEW_SECONDS = 2.0  # passes renew the lease too; this is for a shard with nothing to do


@dataclass(frozen=True, slots=True)
class Rooms:
    """Where a pass reads and writes, how long ended runs are kept, and how long a failed item waits."""

    runs: RunStores
    dispatch: DispatchStores
    keep: Callable[[str], timedelta]  # of an agency
    backoff: Backoff


class Dispatcher:
    """The dispatcher of one shard."""

    def __init__(
        self,
        database: Database,
        leases: LeaseStore,
        shard: int,
        rooms: Rooms,
        wake: asyncio.Event,
        committed: Signal,
    ) -> None:
        self._database = database
        self._leases = leases
        self._shard = shard
        self._rooms = rooms
        self._wake = wake
        self._committed = committed
        self._term = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Dispatch until `stopping`, whenever the lease is ours."""
        while not stopping.is_set():
            try:
                term = await self._leases.acquire(self._shard)
                if term is None:
                    await pause(stopping, 1.0)
                    continue
                self._term = term
                await self._dispatch(stopping)
            except (Unavailable, Fenced) as problem:
                log.warning("dispatcher begins anew", shard=self._shard, code=problem.code, error=problem.message)
                await pause(stopping, 1.0)
        with suppress(Unavailable):
            await self._leases.release(self._shard, self._term)

    async def _dispatch(self, stopping: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        renew_at = sweep_at = loop.time()
        while not stopping.is_set():
            if loop.time() >= renew_at:
                await self._renew()
                renew_at = loop.time() + RENEW_SECONDS
            if loop.time() >= sweep_at:
                await self._mend()
                sweep_at = loop.time() + SWEEP_SECONDS
            for key in await self._leases.due(self._shard, RUNS_A_ROUND):
                await self._work_off(key, stopping)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), POLL_SECONDS)
            self._wake.clear()

    async def _renew(self) -> None:
        if await self._leases.acquire(self._shard) != self._term:
            raise Fenced(Code.LEASE_LOST, f"The dispatcher of shard {self._shard} has a newer holder")

    async def _mend(self) -> None:
        forgotten = await self._leases.sweep(self._shard)
        if forgotten:
            metrics.backstop_mends.labels("agenda").inc(forgotten)
            log.error("the agenda forgot runs", shard=self._shard, count=forgotten)

    async def _work_off(self, key: RunKey, stopping: asyncio.Event) -> None:
        """Make passes over a run while they change something. One that cannot be worked fails: it must not stop others."""
        try:
            while await self._pass(key, decide) and not stopping.is_set():
                pass
        except (InvalidMessage, RunBroken) as problem:
            log.error("run cannot be worked", run_id=str(key.run_id), code=problem.code, error=problem.message)
            cause: Cause = "transform" if isinstance(problem, RunBroken) else "infrastructure"
            failed = Fail(problem.code, cause)
            try:
                await self._pass(
                    key, lambda facts, _now: Cancel() if facts.run.state is RunState.CANCELLING else failed
                )
            except (InvalidMessage, RunBroken) as again:
                raise InvariantBroken(Code.INVARIANT_BROKEN, f"Run {key.run_id} cannot even fail") from again

    async def _pass(self, key: RunKey, decided: Callable[[Facts, datetime], Pass]) -> bool:
        """Make one pass over a run; tell whether another should follow at once."""
        async with self._database.transaction([key.agency_id]) as connection:
            store, runs = self._rooms.dispatch(connection), self._rooms.runs(connection)
            now = await store.hold(self._shard, self._term, self._leases.seconds)
            run = (await runs.lock_runs([key])).get(key)
            if run is None or run.state in TERMINAL:
                await store.look_again(key, None)
                return False
            facts = await store.gather(run, now)
            with step_span("dispatch", run.traceparent):
                acts = Acts(connection, store, runs, facts, now, self._rooms)
                again = await acts.carry_out(decided(facts, now))
        for told in acts.after:
            told()
        self._committed.set()
        return again


class Acts:
    """Carries out one decision, in its transaction."""

    def __init__(
        self,
        connection: Connection,
        store: DispatchStore,
        runs: RunStore,
        facts: Facts,
        now: datetime,
        rooms: Rooms,
    ) -> None:
        self._connection = connection
        self._store = store
        self._runs = runs
        self._facts = facts
        self._run = facts.run
        self._now = now
        self._rooms = rooms
        self.after: list[Callable[[], None]] = []  # what is counted once the transaction is committed

    async def carry_out(self, decision: Pass) -> bool:
        """Do what was decided; tell whether the run should be looked at again at once."""
        match decision:
            case Move():
                return await self._move(decision)
            case Work():
                return await self._work(decision)
            case Fail(code, cause):
                return await self._end(RunState.FAILED, cause, code)
            case Complete():
                return await self._end(RunState.COMPLETED, None, None)
            case Cancel():
                return await self._end(RunState.CANCELLED, None, None)

    async def _move(self, move: Move) -> bool:
        run = self._run
        if move.kind is not None:
            await self._store.make_items(run.key, move.kind, move.items)
        if move.kind == "extract":
            run = replace(
                run,
                partitions_made=run.partitions_made + len(move.items),
                objects_made=run.objects_made + sum(count for _, _, count in move.items),
            )
        if move.state is not None:
            run = self._moved(run, move.state)
            await self._emit([self._fact(run, "run." + move.state.lower())])
        await self._runs.save_runs([run])
        moved = f"run.{run.state.lower()}" if move.state is not None else f"run.{move.kind}-made"
        await self._runs.add_history([self._line(moved)])
        return True

    def _moved(self, run: Run, state: RunState) -> Run:
        if not may_move(run.state, state):
            raise InvariantBroken(Code.INVARIANT_BROKEN, f"A run cannot go from {run.state} to {state}")
        return replace(run, state=state)

    async def _work(self, work: Work) -> bool:
        # A recalled item's term was raised when it came back; only a new item gets its first term here.
        out = [replace(item, state=ItemState.DISPATCHED, term=max(item.term, 1)) for item in work.dispatch]
        back = [self._recalled(item) for item in work.recall]
        request = await self._store.request(self._run.key) if out else {}
        events = [await work_item(self._store, self._run, item, request, self._now) for item in out]
        facts = [self._item_fact(item, "item.dispatched") for item in out]
        facts += [self._item_fact(item, "item.recalled") for item in back]
        fences = [item_fence(item, self._now) for item in back if item.state is ItemState.PENDING]
        await self._emit([*facts, *fences, *events])
        await self._runs.save_items([*out, *back])
        lines = [self._line("item.dispatched", item) for item in out] + [self._line("item.recalled", i) for i in back]
        await self._runs.add_history(lines)
        again = work.more or bool(back)
        await self._store.look_again(self._run.key, self._now if again else work.wake_at)
        self.after.append(partial(count_pass, out, back))
        return again

    def _recalled(self, item: Item) -> Item:
        if item.state is ItemState.DISPATCHED:
            return replace(item, state=ItemState.PENDING, term=item.term + 1, failure_code=Code.QUEUED_TOO_LONG)
        return spend_attempt(item, Code.STALLED, "infrastructure", self._now, self._rooms.backoff)

    async def _end(self, state: RunState, cause: str | None, code: str | None) -> bool:
        endings = Endings(self._store, self._facts, self._rooms.keep(self._run.key.agency_id))
        events = await endings.end(state, cause, code)
        # Whatever still runs is called back (its reports are fenced anyway); a command to cancel has said so already.
        fence = [] if state is RunState.CANCELLED else [run_fence(self._run, self._now)]
        await self._emit([*events, *fence])
        await self._runs.add_history([self._line(f"run.{state.lower()}", code=code)])
        await self._store.look_again(self._run.key, None)
        self.after.append(partial(count_end, state, cause, code))
        log.info(
            "run ended", run_id=str(self._run.key.run_id), agency_id=self._run.key.agency_id, state=state, code=code
        )
        return False

    def _fact(self, run: Run, type_: str) -> Outgoing:
        return EMITTER.fact(
            run.key.agency_id,
            type_,
            at=self._now,
            event_id=derived_id(["fact", type_, str(run.key.run_id), run.run_attempt]),
            subject=str(run.key.run_id).encode(),
            refs={"run_id": str(run.key.run_id), "run_attempt": run.run_attempt},
            traceparent=run.traceparent,
        )

    def _item_fact(self, item: Item, type_: str) -> Outgoing:
        key = item.key
        return EMITTER.fact(
            key.agency_id,
            type_,
            at=self._now,
            # The last attempt leaves the term as it is: the attempt tells it from the one before.
            event_id=derived_id(["fact", type_, str(key), item.term, item.attempt]),
            subject=str(key).encode(),
            refs={"run_id": str(key.run_id), "kind": key.kind, "number": key.number, "term": item.term},
        )

    def _line(self, type_: str, item: Item | None = None, *, code: str | None = None) -> HistoryRow:
        return HistoryRow(
            run=self._run.key,
            item=item.key if item else None,
            term=item.term if item else None,
            seq=None,
            type=type_,
            code=code or (item.failure_code if item and item.state is not ItemState.DISPATCHED else None),
            source="dispatcher",
        )

    async def _emit(self, events: Sequence[Outgoing]) -> None:
        await insert_outbox(self._connection, events)
