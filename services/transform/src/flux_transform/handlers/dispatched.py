"""From the event that travels to the item that is worked."""

from __future__ import annotations

from flux_common.contracts.work import Job as JobModel
from flux_common.contracts.work import WorkDispatched
from flux_transform.domain.items import Head, IndexName, Item, Job


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
