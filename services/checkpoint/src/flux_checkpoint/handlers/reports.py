"""The progress lane: workers' reports become checkpoints.

One batch, one transaction: lock the runs, then the items; judge every record in order on the values in hand; write each
changed row once. A record that cannot be read is a dead letter of the same decision; a slice record that contradicts itself
is one too, and breaks its run. Whatever happened to an item lets the dispatcher look at the run.

A record's agency is the worker's word. Only where it names a run that is there is anything of that agency touched: its
topics, its log. What is said of no run of ours is told to `_system`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog

from flux_checkpoint.domain.judge import Backoff, Verdict, judge
from flux_checkpoint.domain.model import Item, ItemKey, Report, Run, RunKey, Slice
from flux_checkpoint.domain.states import TERMINAL
from flux_checkpoint.handlers.decoding import read_report
from flux_checkpoint.handlers.figures import count_ended, count_reports
from flux_checkpoint.ports import HashRow, HistoryRow, RunStore, RunStores
from flux_common.contracts import catalogue
from flux_common.contracts.decisions import RecordDeadLettered
from flux_common.contracts.envelope import Outgoing
from flux_common.contracts.outgoing import Emitter
from flux_common.contracts.types import RecordPosition
from flux_common.contracts.work import WorkFenced
from flux_common.kernel.errors import FluxError, InvalidMessage, RunBroken
from flux_common.kernel.ids import SYSTEM_AGENCY, decided_id, derived_id, item_name
from flux_common.kernel.positions import LaneBatch, Received
from flux_common.kernel.signals import Signal
from flux_common.observability import metrics
from flux_common.postgres.lanes import Advance, PostgresLanes
from flux_common.postgres.outbox import DeadLetter

log = structlog.get_logger(__name__)

EMITTER = Emitter("checkpoint")


@dataclass(slots=True)
class Fold:
    """The batch's rows as judged so far; each is written once, however many records touched it."""

    runs: dict[RunKey, Run]
    items: dict[ItemKey, Item]
    touched_runs: set[RunKey] = field(default_factory=set)
    touched_items: set[ItemKey] = field(default_factory=set)
    agenda: set[RunKey] = field(default_factory=set)
    plans: list[tuple[RunKey, Any]] = field(default_factory=list)
    manifests: list[tuple[RunKey, Any]] = field(default_factory=list)
    history: list[HistoryRow] = field(default_factory=list)
    hashes: list[HashRow] = field(default_factory=list)
    fences: list[Item] = field(default_factory=list)
    fenced: Counter[RunKey | None] = field(default_factory=Counter)  # None: of runs that are not there
    digests: dict[tuple[ItemKey, int], bytes] = field(default_factory=dict)  # of slices that may come again


class ReportsHandler:
    """Applies batches of the progress lane."""

    def __init__(self, lanes: PostgresLanes, stores: RunStores, backoff: Backoff, wake: Signal) -> None:
        self._lanes = lanes
        self._stores = stores
        self._backoff = backoff
        self._wake = wake

    async def apply(self, batch: LaneBatch) -> None:
        """Judge and apply a batch in one transaction."""
        read = [(record, _read(record)) for record in batch.records]
        agencies = {key.agency_id for _, found in read if (key := _run_of(found)) is not None}
        async with self._lanes.advance(batch, agencies) as advance:
            store = self._stores(advance.connection)
            fold = await self._gather(store, [found for _, found in read])
            for record, found in read:
                self._take_in(fold, advance, record, found)
            await self._act(store, advance, fold)
        count_reports(advance)
        count_ended([fold.items[key] for key in fold.touched_items], advance.now)
        self._wake.set()

    async def refuse(self, batch: LaneBatch, problem: FluxError) -> None:
        """Put the records of `batch` aside: one that was refused or shows that its run is broken, or unreadable ones."""
        keys = {record.position: _run_of(_read(record)) for record in batch.records}
        known = {key for key in keys.values() if key is not None}
        async with self._lanes.advance(batch, {key.agency_id for key in known}) as advance:
            store = self._stores(advance.connection)
            fold = Fold(await store.lock_runs(known), {})
            for record in batch.records:
                key = keys[record.position]
                bury(advance, record, _owner(fold, key), problem.code)
                if isinstance(problem, RunBroken):
                    _break(fold, key, problem.code)
            if isinstance(problem, RunBroken):
                await self._act(store, advance, fold)
        count_reports(advance)
        log.error("reports refused", position=str(batch.records[0].position), code=problem.code)

    async def _gather(self, store: RunStore, found: list[Report | FluxError]) -> Fold:
        reports = [report for report in found if isinstance(report, Report)]
        runs = await store.lock_runs({key for one in found if (key := _run_of(one)) is not None})
        items = await store.lock_items({report.item for report in reports})
        again = [(report.item, seq) for report in reports if (seq := _repeated(items.get(report.item), report))]
        return Fold(runs, items, digests=await store.digests(again))

    def _take_in(self, fold: Fold, advance: Advance, record: Received, found: Report | FluxError) -> None:
        if isinstance(found, FluxError):
            self._take_in_unreadable(fold, advance, record, found)
            return
        run, item = fold.runs.get(found.item.run), fold.items.get(found.item)
        applied = fold.digests.get((found.item, found.what.seq)) if isinstance(found.what, Slice) else None
        verdict = judge(run, item, found, advance.now, self._backoff, applied)
        match verdict.kind:
            case "duplicate":
                advance.duplicate(record, ref=str(found.item))
                if verdict.differs:
                    metrics.digest_conflicts.inc()
                    log.error(
                        "another digest for an applied slice", item=str(found.item), position=str(record.position)
                    )
            case "fenced":
                advance.fenced(record, ref=str(found.item))
                fold.fenced[found.item.run if run is not None else None] += 1
            case "dead_letter":
                bury(advance, record, found.item.agency_id, verdict.code or "")
                log.error("report put aside", item=str(found.item), code=verdict.code, position=str(record.position))
        _keep(fold, found, verdict)

    def _take_in_unreadable(self, fold: Fold, advance: Advance, record: Received, problem: FluxError) -> None:
        key = _run_of(problem)
        bury(advance, record, _owner(fold, key), problem.code)
        log.error("report unreadable", position=str(record.position), code=problem.code)
        _break(fold, key, problem.code)

    async def _act(self, store: RunStore, advance: Advance, fold: Fold) -> None:
        advance.emit(self._facts(fold, advance))
        await store.save_runs([fold.runs[key] for key in sorted(fold.touched_runs)])
        for key, plan in fold.plans:
            await store.save_plan(key, plan)
        for key, finished in fold.manifests:
            await store.save_manifest(key, finished)
        await store.save_items([fold.items[key] for key in fold.touched_items])
        await store.add_hashes(fold.hashes)
        await store.add_history(fold.history)
        await store.put_on_agenda(fold.agenda)
        advance.emit([item_fence(item, advance.now) for item in fold.fences])

    def _facts(self, fold: Fold, advance: Advance) -> list[Outgoing]:
        facts = []
        for ordinal, row in enumerate(fold.history):
            if row.item is None or row.type not in _TOLD:
                continue
            facts.append(
                EMITTER.fact(
                    row.run.agency_id,
                    "item." + row.type.split(".")[2],
                    at=advance.now,
                    event_id=derived_id(
                        ["fact", row.type, str(row.item), row.term, row.kafka_partition, row.kafka_offset, ordinal]
                    ),
                    subject=row.body or str(row.item).encode(),
                    outcome="failed" if row.code else "ok",
                    code=row.code,
                    position=_position(advance, row),
                    refs=_refs(row),
                )
            )
        return facts + [_fenced_fact(advance, key, count) for key, count in fold.fenced.items()]


_TOLD = {catalogue.PLANNED.ce_type, catalogue.FINISHED.ce_type, catalogue.FAILED.ce_type}


def _refs(row: HistoryRow) -> dict[str, Any]:
    assert row.item is not None
    return {
        "run_id": str(row.run.run_id),
        "kind": row.item.kind,
        "number": row.item.number,
        "term": row.term or 0,
    }


def _position(advance: Advance, row: HistoryRow) -> Any:
    return advance.batch.lane.tp.at(row.kafka_offset or 0)


def _fenced_fact(advance: Advance, key: RunKey | None, count: int) -> Outgoing:
    tp, first = advance.batch.lane.tp, advance.batch.lane.next_offset
    run = str(key.run_id) if key is not None else None
    return EMITTER.fact(
        key.agency_id if key is not None else SYSTEM_AGENCY,
        "report.fenced",
        at=advance.now,
        event_id=derived_id(["fact", "report.fenced", run, tp.kafka_partition, first]),
        subject=(run or "").encode(),
        outcome="refused",
        position=tp.at(first),
        refs={"count": count} | ({"run_id": run} if run is not None else {}),
    )


def _keep(fold: Fold, report: Report, verdict: Verdict) -> None:
    """Fold a verdict into the rows in hand."""
    if verdict.item is None:
        return
    before = fold.items[report.item]
    fold.items[report.item] = verdict.item
    fold.touched_items.add(report.item)
    if verdict.fence:
        fold.fences.append(verdict.item)
    if before.state is not verdict.item.state or verdict.item.counts.rejected != before.counts.rejected:
        fold.agenda.add(report.item.run)
    if verdict.kind != "effect":
        return
    if verdict.planned is not None:
        plan = verdict.planned
        fold.plans.append((report.item.run, plan))
        fold.runs[report.item.run] = replace(
            fold.runs[report.item.run],
            plan_digest=plan.digest,
            transform_version=plan.transform_version,
            objects=plan.objects,
            partitions=len(plan.partitions),
        )
        fold.touched_runs.add(report.item.run)
    if verdict.finished is not None and report.item.kind == "finalize":
        fold.manifests.append((report.item.run, verdict.finished))
    _record(fold, report, verdict)


def _record(fold: Fold, report: Report, verdict: Verdict) -> None:
    place = report.position
    done = report.what if isinstance(report.what, Slice) else None
    if done is not None:
        fold.hashes.append(HashRow(report.item, done, place.tp.kafka_partition, place.offset))
        fold.digests[report.item, done.seq] = done.hash
    if report.event_type == catalogue.ALIVE.ce_type:
        return
    fold.history.append(
        HistoryRow(
            run=report.item.run,
            item=report.item,
            term=report.term,
            seq=done.seq if done is not None else None,
            type=report.event_type,
            code=verdict.code,
            source="progress",
            kafka_partition=place.tp.kafka_partition,
            kafka_offset=place.offset,
            body=report.body if done is not None else None,
        )
    )


def _read(record: Received) -> Report | FluxError:
    try:
        return read_report(record)
    except (InvalidMessage, RunBroken) as problem:
        return problem


def _run_of(found: Report | FluxError) -> RunKey | None:
    """Return the run that a record speaks of, or that it breaks; None where that cannot be read."""
    if isinstance(found, Report):
        return found.item.run
    if isinstance(found, RunBroken):
        return RunKey(found.context["agency_id"], UUID(found.context["run_id"]))
    return None


def _owner(fold: Fold, key: RunKey | None) -> str:
    return key.agency_id if key is not None and key in fold.runs else SYSTEM_AGENCY


def _break(fold: Fold, key: RunKey | None, code: str) -> None:
    """Let the dispatcher fail a run whose own records contradict each other."""
    run = fold.runs.get(key) if key is not None else None
    if run is None or run.state in TERMINAL:
        return
    fold.runs[run.key] = replace(run, broken_code=code)
    fold.touched_runs.add(run.key)
    fold.agenda.add(run.key)


def _repeated(item: Item | None, report: Report) -> int | None:
    """Return the seq of a slice that was applied before this batch."""
    if item is None or not isinstance(report.what, Slice) or report.what.seq > item.last_seq:
        return None
    return report.what.seq


def item_fence(item: Item, at: datetime) -> Outgoing:
    """Return the event that calls back everything of an item below its present term."""
    key = item.key
    return EMITTER.event(
        catalogue.FENCES,
        catalogue.WORK_FENCED,
        WorkFenced(
            agency_id=key.agency_id,
            run_id=str(key.run_id),
            kind=key.kind,
            number=key.number,
            term_min=max(1, item.term),
        ),
        agency_id=key.agency_id,
        key=item_name(str(key.run_id), key.kind, key.number),
        event_id=derived_id(["flux.work.fenced.v1", str(key.run_id), key.kind, key.number, item.term]),
        at=at,
    )


def bury(advance: Advance, record: Received, agency_id: str, code: str) -> None:
    """Put a record aside: the ledger, the table, the agency's topic and the audit log all say so."""
    advance.bury(record, DeadLetter.of(agency_id, record, code))
    place, topic_id = record.position, advance.batch.lane.topic_id
    fact = EMITTER.fact(
        agency_id,
        "record.dead-lettered",
        at=advance.now,
        event_id=decided_id("checkpoint", topic_id, place, 1),
        subject=record.value or b"",
        outcome="refused",
        code=code,
        position=place,
    )
    advance.emit([fact])
    if agency_id == SYSTEM_AGENCY:  # nobody to tell
        return
    letter = RecordDeadLettered(
        agency_id=agency_id,
        position=RecordPosition(topic=place.tp.topic, kafka_partition=place.tp.kafka_partition, offset=place.offset),
        sha256=record.sha256,
        code=code,
    )
    event = EMITTER.event(
        catalogue.DEAD_LETTERS,
        catalogue.RECORD_DEAD_LETTERED,
        letter,
        agency_id=agency_id,
        key=str(place),
        event_id=decided_id("checkpoint", topic_id, place, 0),
        at=advance.now,
    )
    advance.emit([event])
