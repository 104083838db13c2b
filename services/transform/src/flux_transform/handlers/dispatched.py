"""From the event that travels to the item that is worked.

An event of a newer checkpoint may have members that this worker does not know. It must not do such an item, but it can
tell which one it is, so that checkpoint need not wait until the item has been queued too long.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError

from flux_common.contracts.types import AgencyId, Count, Digest, ItemKindName, Positive, Uuid
from flux_common.contracts.work import Job as JobModel
from flux_common.contracts.work import WorkDispatched
from flux_transform.domain.items import Head, IndexName, Item, Job

NO_JOB = Job("", "", "", "")


class Identity(BaseModel):
    """The members that name an item and the end of its chain; all others are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, hide_input_in_errors=True)

    agency_id: AgencyId
    run_id: Uuid
    kind: ItemKindName
    number: Count
    term: Positive
    next_seq: Positive = 1
    chain_head: Digest | None = None


def what_can_be_read(value: bytes | None) -> Item | None:
    """Return an item that has no job but a name, a term and a chain's end; None if the value does not tell them."""
    try:
        found = Identity.model_validate_json(value or b"")
    except ValidationError:
        return None
    return Item(
        agency_id=found.agency_id,
        run_id=found.run_id,
        request_id="",
        run_attempt=1,
        kind=found.kind,
        number=found.number,
        term=found.term,
        job=NO_JOB,
        next_seq=found.next_seq,
        chain_head=found.chain_head,
    )


def item_of(event: WorkDispatched) -> Item:
    """Return the work item that a `flux.work.dispatched.v1` names."""
    return Item(
        agency_id=event.agency_id,
        run_id=event.run_id,
        request_id=event.request_id,
        run_attempt=event.run_attempt,
        kind=event.kind,
        number=event.number,
        term=event.term,
        job=_job_of(event.job),
        transform_version=event.transform_version,
        plan_digest=event.plan_digest,
        first=event.range.first if event.range else 0,
        count=event.range.count if event.range else 0,
        next_seq=event.next_seq,
        cursor=event.cursor,
        chain_head=event.chain_head,
        heads=tuple(Head(head.number, head.last_seq, head.head) for head in event.heads),
        indexes=tuple(IndexName(index.number, index.index_digest) for index in event.indexes),
    )


def _job_of(job: JobModel) -> Job:
    return Job(
        source_uri=job.source.uri,
        destination_uri=job.destination.uri,
        content_type=job.content_type,
        use_case=job.use_case,
        include=tuple(job.source.include),
        exclude=tuple(job.source.exclude),
        partition_objects_max=job.partitioning.objects_max,
        partition_bytes_max=job.partitioning.bytes_max,
        options=dict(job.options),
        labels=dict(job.labels),
    )
