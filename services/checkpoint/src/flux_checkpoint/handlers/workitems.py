"""Writing a work item: everything a worker needs, and nothing of the database."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import ValidationError

from flux_checkpoint.domain.model import GATHER_HEADS_MAX, Item, Run
from flux_checkpoint.ports import DispatchStore
from flux_common.contracts import catalogue
from flux_common.contracts.envelope import Outgoing
from flux_common.contracts.outgoing import Emitter
from flux_common.contracts.requests import RunRequested
from flux_common.contracts.work import ChainHead, GatheredIndex, Job, PlanRange, WorkDispatched
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import RunBroken
from flux_common.kernel.ids import dispatch_id, item_name

_EMITTER = Emitter("checkpoint")


async def work_item(store: DispatchStore, run: Run, item: Item, request: dict[str, Any], at: datetime) -> Outgoing:
    """Return the event that hands `item` out under its term.

    Raises:
        RunBroken: the stored request is none.
    """
    key, run_id = item.key, str(item.key.run_id)
    body = WorkDispatched(
        agency_id=key.agency_id,
        run_id=run_id,
        request_id=run.request_id,
        run_attempt=run.run_attempt,
        kind=key.kind,
        number=key.number,
        term=item.term,
        attempt=item.attempt,
        job=_job(request),
        transform_version=run.transform_version,
        plan_digest=_hex(run.plan_digest),
        **await _particulars(store, run, item),
    )
    return _EMITTER.event(
        catalogue.WORK,
        catalogue.WORK_DISPATCHED,
        body,
        agency_id=key.agency_id,
        key=f"{item_name(run_id, key.kind, key.number)}/{item.term}",
        event_id=dispatch_id(
            catalogue.WORK_DISPATCHED.ce_type, run_id, run.run_attempt, key.kind, key.number, item.term
        ),
        at=at,
        subject=str(key),
        traceparent=run.traceparent,
    )


def _job(request: dict[str, Any]) -> Job:
    try:
        asked = RunRequested.model_validate(request)
    except ValidationError as problem:
        raise RunBroken(Code.SCHEMA_VIOLATION, "The stored request is none") from problem
    return Job(
        source=asked.source,
        destination=asked.destination,
        content_type=asked.content_type,
        use_case=asked.use_case,
        partitioning=asked.partitioning,
        on_reject=asked.on_reject,
        options=asked.options,
        labels=asked.labels,
    )


async def _particulars(store: DispatchStore, run: Run, item: Item) -> dict[str, Any]:
    match item.key.kind:
        case "extract":
            return {
                "range": PlanRange(first=item.first_object, count=item.object_count),
                "next_seq": item.last_seq + 1,
                "cursor": item.cursor,
                "chain_head": _hex(item.chain_head if item.last_seq else run.plan_digest),
            }
        case "gather":
            found = await store.heads(run.key, item.key.number * GATHER_HEADS_MAX, GATHER_HEADS_MAX)
            return {"heads": [ChainHead(number=n, last_seq=seq, head=head.hex()) for n, seq, head in found]}
        case "finalize":
            indexes = await store.indexes(run.key)
            return {"indexes": [GatheredIndex(number=number, index_digest=digest.hex()) for number, digest in indexes]}
        case _:
            return {}


def _hex(digest: bytes | None) -> str | None:
    return digest.hex() if digest is not None else None
