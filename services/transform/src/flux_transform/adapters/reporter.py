"""Reports to checkpoint: events on the progress topic, keyed by run, acknowledged before the call returns.

A `sliced` event's value is the slice record's bytes and nothing else; its term and seq are headers (docs/protocol.md).
A broker that does not answer is an outage; a report that the broker will never take is the item's failure, for to wait
would be to wait for ever.
"""

from __future__ import annotations

from typing import Any

from flux_common.contracts import catalogue, progress
from flux_common.contracts.catalogue import EventSpec
from flux_common.contracts.envelope import Outgoing, body_bytes, headers_for
from flux_common.contracts.types import Event
from flux_common.kafka.errors import PublishRefused
from flux_common.kafka.publisher import IdempotentPublisher
from flux_common.kernel.clock import Clock
from flux_common.kernel.codes import Code
from flux_common.kernel.ids import progress_id
from flux_common.observability.tracing import current_traceparent
from flux_transform.domain.failures import WorkFailed
from flux_transform.domain.items import Item, Outcome, PlanSummary
from flux_transform.ports import Failure

MENDABLE = frozenset({str(Code.TOPIC_MISSING)})  # what an operator may put right while the item waits


class ProgressReporter:
    """The `Reporter` of one worker. Each call raises `Unavailable` while the broker does not answer."""

    def __init__(self, publisher: IdempotentPublisher, worker: str, version: str, clock: Clock) -> None:
        self._publisher = publisher
        self._worker = worker
        self._version = version
        self._clock = clock
        self._beats = 0

    async def started(self, item: Item) -> None:
        """Say that the item is begun."""
        body = progress.Started(**self._named(item), transform_version=self._version)
        await self._tell(item, catalogue.STARTED, body)

    async def alive(self, item: Item) -> None:
        """Say that the item is still being worked."""
        self._beats += 1
        body = progress.Alive(**self._named(item), counter=self._beats)
        await self._tell(item, catalogue.ALIVE, body, self._worker, self._beats)

    async def planned(self, item: Item, plan: PlanSummary) -> None:
        """Say that the plan is stored."""
        body = progress.Planned(
            **self._named(item),
            plan_digest=plan.digest,
            objects=plan.objects,
            bytes=plan.bytes,
            partitions=list(plan.partitions),
            transform_version=self._version,
        )
        await self._tell(item, catalogue.PLANNED, body)

    async def sliced(self, item: Item, seq: int, record: bytes) -> None:
        """Send a slice record, byte for byte."""
        event_id = progress_id(catalogue.SLICED.ce_type, item.run_id, item.kind, item.number, item.term, seq)
        extensions = {"ce_fluxterm": str(item.term), "ce_fluxseq": str(seq)}
        await self._send(item, catalogue.SLICED, str(event_id), record, extensions)

    async def finished(self, item: Item, outcome: Outcome) -> None:
        """Say that the item is done."""
        body = progress.Finished(
            **self._named(item),
            last_seq=outcome.last_seq,
            head=outcome.head,
            result_digest=outcome.result_digest,
            manifest_uri=outcome.manifest_uri,
            files=outcome.files,
            rows=outcome.rows,
        )
        await self._tell(item, catalogue.FINISHED, body)

    async def failed(self, item: Item, failure: Failure) -> None:
        """Say that the item cannot be done."""
        body = progress.Failed(
            **self._named(item),
            last_seq=failure.last_seq,
            head=failure.head,
            code=failure.code,
            cause=failure.cause,
            transient=failure.transient,
        )
        await self._tell(item, catalogue.FAILED, body)

    def _named(self, item: Item) -> dict[str, Any]:
        return {
            "agency_id": item.agency_id,
            "run_id": item.run_id,
            "kind": item.kind,
            "number": item.number,
            "term": item.term,
            "worker": self._worker,
        }

    async def _tell(self, item: Item, spec: EventSpec, body: Event, *more: str | int) -> None:
        event_id = progress_id(spec.ce_type, item.run_id, item.kind, item.number, item.term, None, *more)
        await self._send(item, spec, str(event_id), body_bytes(body), {"ce_fluxterm": str(item.term)})

    async def _send(self, item: Item, spec: EventSpec, event_id: str, value: bytes, extensions: dict[str, str]) -> None:
        headers = headers_for(
            spec,
            event_id=event_id,
            source="flux/transform",
            at=self._clock.now(),
            subject=item.name,
            traceparent=current_traceparent(),
            extensions=extensions,
        )
        event = Outgoing(catalogue.PROGRESS.name, item.run_id, event_id, headers, value, item.agency_id)
        try:
            await self._publisher.send([event])
        except PublishRefused as problem:
            if problem.code in MENDABLE:
                raise
            message = f"The broker will never take the report {spec.ce_type} ({problem.code})"
            raise WorkFailed(Code.WORKER_FAILED, message, cause="transform") from problem
