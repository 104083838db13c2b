"""The runs lane: admitted runs are recorded, commands applied or refused.

Ingest decided already; what arrives here is believed, but a record that cannot be read, or names a run by another id than
its request's, is a dead letter. Records take effect in their order, whatever batches they come in: a command before its
run's admission finds no run. A command and a dispatcher's pass both lock the run's row first, so one sees the other's
outcome whole; the runs of all of a batch's commands are locked before anything else, in the one order that all keep.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from uuid import UUID

import structlog

from flux_checkpoint.domain.commands import Applied, apply_command
from flux_checkpoint.domain.model import NUMBER_MAX, Item, Run, RunKey
from flux_checkpoint.domain.states import ItemState
from flux_checkpoint.handlers.reports import EMITTER, bury, item_fence
from flux_checkpoint.ports import Admission, HistoryRow, RunStore, RunStores
from flux_common.contracts import catalogue
from flux_common.contracts.envelope import Envelope, Outgoing, read_body, read_envelope
from flux_common.contracts.runs import CommandAdmitted, CommandApplied, CommandRefused, RunAdmitted
from flux_common.contracts.work import WorkFenced
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import FluxError, InvalidMessage, ValidationFailed
from flux_common.kernel.ids import SYSTEM_AGENCY, decided_id, derived_id, run_id
from flux_common.kernel.positions import LaneBatch, Received
from flux_common.kernel.signals import Signal
from flux_common.observability.tracing import carried_traceparent
from flux_common.postgres.lanes import Advance, PostgresLanes

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Admitted:
    """One readable record of the runs topic."""

    record: Received
    envelope: Envelope
    body: RunAdmitted | CommandAdmitted

    @property
    def key(self) -> RunKey:
        """Return the run that it speaks of."""
        return RunKey(self.body.agency_id, UUID(self.body.run_id))


class AdmissionsHandler:
    """Applies batches of the runs lane."""

    def __init__(self, lanes: PostgresLanes, stores: RunStores, run_ttl: timedelta, wake: Signal) -> None:
        self._lanes = lanes
        self._stores = stores
        self._run_ttl = run_ttl
        self._wake = wake

    async def apply(self, batch: LaneBatch) -> None:
        """Record runs and apply commands, in the batch's order, in one transaction."""
        read = [(record, _read(record)) for record in batch.records]
        known = [found for _, found in read if isinstance(found, Admitted)]
        async with self._lanes.advance(batch, {found.body.agency_id for found in known}) as advance:
            store = self._stores(advance.connection)
            await store.insert_agencies(
                {found.body.agency_id for found in known if isinstance(found.body, RunAdmitted)}
            )
            await store.lock_runs({found.key for found in known if isinstance(found.body, CommandAdmitted)})
            for admissions, group in groupby(read, key=lambda one: _is_admission(one[1])):
                if admissions:
                    await self._admit(store, advance, [found for _, found in group if isinstance(found, Admitted)])
                    continue
                for record, found in group:
                    await self._take_in(store, advance, record, found)
        self._wake.set()

    async def refuse(self, batch: LaneBatch, problem: FluxError) -> None:
        """Put the records of `batch` aside: one that the database refused, or unreadable ones."""
        read = [(record, _read(record)) for record in batch.records]
        owners = [found.body.agency_id if isinstance(found, Admitted) else SYSTEM_AGENCY for _, found in read]
        async with self._lanes.advance(batch, {*owners} - {SYSTEM_AGENCY}) as advance:
            for (record, _), agency in zip(read, owners, strict=True):
                bury(advance, record, agency, problem.code)
        log.error("admissions refused", position=str(batch.records[0].position), code=problem.code)

    async def _admit(self, store: RunStore, advance: Advance, found: list[Admitted]) -> None:
        runs = [one for one in found if isinstance(one.body, RunAdmitted)]
        if not runs:
            return
        made = await store.insert_runs([_admission(one, advance.now, self._run_ttl) for one in runs])
        history = []
        for one in runs:
            if one.key not in made:
                advance.duplicate(one.record, ref=str(one.key.run_id))
                continue
            made.discard(one.key)  # a twin in the same batch is a duplicate
            history.append(_history(one, None))
        await store.add_history(history)
        await store.put_on_agenda([row.run for row in history])

    async def _take_in(self, store: RunStore, advance: Advance, record: Received, found: Admitted | FluxError) -> None:
        if isinstance(found, FluxError):
            bury(advance, record, SYSTEM_AGENCY, found.code)
        elif isinstance(found.body, CommandAdmitted):
            await self._command(store, advance, found, found.body)

    async def _command(self, store: RunStore, advance: Advance, found: Admitted, body: CommandAdmitted) -> None:
        run = (await store.lock_runs([found.key])).get(found.key)
        if run is None:
            self._refused(advance, found, body, Code.RUN_UNKNOWN)
            return
        unfinished = await store.unfinished_partitions(run.key) if body.command == "retry" else 0
        applied = apply_command(run, body.command, body.command_id, advance.now, self._run_ttl, unfinished)
        if applied is None:
            self._refused(advance, found, body, Code.RUN_STATE)
            return
        await self._carry_out(store, advance, applied)
        await store.add_history([_history(found, None)])
        await store.put_on_agenda([found.key])
        self._told(advance, found, body, applied.run)

    async def _carry_out(self, store: RunStore, advance: Advance, applied: Applied) -> None:
        await store.save_runs([applied.run])
        if applied.restart_items:  # the end of the attempt before fenced all that it had handed out
            await store.restart_items(applied.run.key)
        if applied.recall_queued:
            queued = await store.items_in(applied.run.key, [ItemState.DISPATCHED])
            back = [_recalled(item) for item in queued]
            await store.save_items(back)
            # A fence for the run says it for all of its items.
            fences = [] if applied.fence_run else [item_fence(item, advance.now) for item in back]
            advance.emit(fences)
        if applied.fence_run:
            advance.emit([run_fence(applied.run, advance.now)])

    def _told(self, advance: Advance, found: Admitted, body: CommandAdmitted, run: Run) -> None:
        applied = CommandApplied(
            agency_id=body.agency_id,
            request_id=body.request_id,
            run_id=body.run_id,
            command_id=body.command_id,
            command=body.command,
            state=run.state,
        )
        event = self._event(advance, found, catalogue.COMMAND_APPLIED, applied)
        fact = EMITTER.attest(
            event, "command.applied", at=advance.now, position=found.record.position, receipt=False,
            refs={"run_id": body.run_id, "command_id": body.command_id, "state": run.state},
        )  # fmt: skip
        advance.emit([fact, event])

    def _refused(self, advance: Advance, found: Admitted, body: CommandAdmitted, code: str) -> None:
        refused = CommandRefused(
            agency_id=body.agency_id,
            request_id=body.request_id,
            run_id=body.run_id,
            command_id=body.command_id,
            command=body.command,
            code=code,
        )
        event = self._event(advance, found, catalogue.COMMAND_REFUSED, refused)
        fact = EMITTER.attest(
            event, "command.refused", at=advance.now, position=found.record.position, receipt=False, outcome="refused",
            code=code, refs={"run_id": body.run_id, "command_id": body.command_id},
        )  # fmt: skip
        advance.emit([fact, event])

    def _event(
        self, advance: Advance, found: Admitted, spec: catalogue.EventSpec, body: CommandApplied | CommandRefused
    ) -> Outgoing:
        return EMITTER.event(
            catalogue.COMPLETIONS,
            spec,
            body,
            agency_id=body.agency_id,
            key=body.run_id,
            event_id=decided_id("checkpoint", advance.batch.lane.topic_id, found.record.position, 0),
            at=advance.now,
            traceparent=carried_traceparent(found.record.headers),
        )


def _read(record: Received) -> Admitted | FluxError:
    try:
        envelope = read_envelope(record)
        for spec in (catalogue.RUN_ADMITTED, catalogue.COMMAND_ADMITTED):
            if envelope.type == spec.ce_type:
                return _agreeing(Admitted(record, envelope, read_body(spec, record.value)))
        return ValidationFailed(Code.EVENT_TYPE_UNKNOWN, "Not an event of the runs topic")
    except InvalidMessage as problem:
        return problem


def _agreeing(found: Admitted) -> Admitted:
    if found.key.run_id != run_id(found.body.agency_id, found.body.request_id):
        raise ValidationFailed(Code.KEY_MISMATCH, "The run's id is not the one that its request makes")
    return found


def _is_admission(found: Admitted | FluxError) -> bool:
    return isinstance(found, Admitted) and isinstance(found.body, RunAdmitted)


def _admission(found: Admitted, now: datetime, run_ttl: timedelta) -> Admission:
    body, place = found.body, found.record.position
    assert isinstance(body, RunAdmitted)
    return Admission(
        agency_id=body.agency_id,
        run_id=found.key.run_id,
        request_id=body.request_id,
        request=body.request.model_dump_json(),
        request_sha256=bytes.fromhex(body.request_sha256),
        run_window=min(body.run_window, NUMBER_MAX),
        agency_window=min(body.agency_window, NUMBER_MAX),
        traceparent=carried_traceparent(found.record.headers),
        kafka_partition=place.tp.kafka_partition,
        kafka_offset=place.offset,
        admitted_at=now,
        deadline=now + run_ttl,
    )


def _history(found: Admitted, code: str | None) -> HistoryRow:
    place = found.record.position
    command = found.body if isinstance(found.body, CommandAdmitted) else None
    return HistoryRow(
        run=found.key,
        item=None,
        term=None,
        seq=None,
        type=found.envelope.type,
        code=code,
        source="runs",
        kafka_partition=place.tp.kafka_partition,
        kafka_offset=place.offset,
        detail={"command": command.command, "command_id": command.command_id} if command else None,
    )


def _recalled(item: Item) -> Item:
    """Take a queued item back; nobody started it, so no attempt is spent."""
    return replace(item, state=ItemState.PENDING, term=item.term + 1)


def run_fence(run: Run, at: datetime) -> Outgoing:
    """Return the event that calls back everything of a run up to its present attempt."""
    name = str(run.key.run_id)
    return EMITTER.event(
        catalogue.FENCES,
        catalogue.WORK_FENCED,
        WorkFenced(agency_id=run.key.agency_id, run_id=name, run_attempt_min=run.run_attempt + 1),
        agency_id=run.key.agency_id,
        key=name,
        event_id=derived_id(["flux.work.fenced.v1", name, run.run_attempt]),
        at=at,
    )
