"""Rows to values and back; the only place that knows both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from flux_checkpoint.domain.model import Counts, Item, ItemKey, Run, RunKey
from flux_checkpoint.domain.states import ItemState, RunState


def run_of(row: Any) -> Run:
    """Return the run of a row of flux.runs."""
    request = json.loads(row["request"])
    on_reject = request.get("on_reject", {})
    return Run(
        key=RunKey(row["agency_id"], row["run_id"]),
        request_id=row["request_id"],
        state=RunState(row["state"]),
        run_attempt=row["run_attempt"],
        run_window=row["run_window"],
        agency_window=row["agency_window"],
        on_reject=on_reject.get("policy", "skip"),
        ratio_max=float(on_reject.get("ratio_max", 1.0)),
        admitted_at=row["admitted_at"],
        deadline=row["deadline"],
        pause_wanted=row["pause_wanted"],
        cancel_command_id=row["cancel_command_id"],
        cancel_deadline=row["cancel_deadline"],
        broken_code=row["broken_code"],
        plan_digest=row["plan_digest"],
        transform_version=row["transform_version"],
        objects=row["objects"],
        partitions=row["partitions"],
        partition_objects=tuple(row["partition_objects"]),
        partitions_made=row["partitions_made"],
        objects_made=row["objects_made"],
        traceparent=row["traceparent"],
        destination_uri=request.get("destination", {}).get("uri", ""),
    )


def item_of(row: Any) -> Item:
    """Return the item of a row of flux.checkpoints."""
    return Item(
        key=ItemKey(row["agency_id"], row["run_id"], row["kind"], row["number"]),
        state=ItemState(row["state"]),
        term=row["term"],
        attempt=row["attempt"],
        first_object=row["first_object"],
        object_count=row["object_count"],
        last_seq=row["last_seq"],
        cursor=row["cursor"],
        chain_head=row["chain_head"],
        result_digest=row["result_digest"],
        counts=Counts(row["read"], row["written"], row["rejected"], row["bytes_in"], row["bytes_out"]),
        rejects=json.loads(row["rejects"]),
        not_before=row["not_before"],
        failure_code=row["failure_code"],
        failure_cause=row["failure_cause"],
        worker=row["worker"],
        last_heard=row["last_heard"],
        last_slice=row["last_slice"],
        kafka_partition=row["kafka_partition"],
        dispatched_at=row["dispatched_at"],
    )


def columns_of(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    """Turn rows into the arrays that `unnest` takes."""
    return [list(column) for column in zip(*rows, strict=True)]


def run_columns(run: Run) -> tuple[Any, ...]:
    """Return a run as the parameters of `save_runs`."""
    return (
        run.key.agency_id,
        run.key.run_id,
        run.state,
        run.run_attempt,
        run.pause_wanted,
        run.cancel_command_id,
        run.cancel_deadline,
        run.broken_code,
        run.plan_digest,
        run.transform_version,
        run.objects,
        run.partitions,
        run.deadline,
        run.partitions_made,
        run.objects_made,
    )


def item_columns(item: Item) -> tuple[Any, ...]:
    """Return an item as the parameters of `save_items`."""
    key, counts = item.key, item.counts
    return (
        key.agency_id,
        key.run_id,
        key.kind,
        key.number,
        item.state,
        item.term,
        item.attempt,
        item.not_before,
        item.last_seq,
        item.cursor,
        item.chain_head,
        item.result_digest,
        counts.read,
        counts.written,
        counts.rejected,
        counts.bytes_in,
        counts.bytes_out,
        json.dumps(dict(item.rejects)),
        item.failure_code,
        item.failure_cause,
        item.worker,
        item.last_heard,
        item.last_slice,
        item.kafka_partition,
    )
