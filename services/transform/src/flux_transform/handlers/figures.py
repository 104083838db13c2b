"""What transform counts: a slice once its record is acknowledged; work done twice counts twice."""

from __future__ import annotations

from collections import Counter

from flux_common.observability import metrics
from flux_transform.domain.records import SliceWork
from flux_transform.domain.slices import Slice


def count_slice(content_type: str, piece: Slice, work: SliceWork, seconds: float) -> None:
    """Count the objects and bytes of an acknowledged slice, and how long it took from fetch to report."""
    metrics.objects.labels(content_type, "written").inc(work.written)
    metrics.objects.labels(content_type, "rejected").inc(len(work.rejects))
    for code, number in Counter(reject.code for reject in work.rejects).items():
        metrics.rejects.labels(code).inc(number)
    metrics.bytes_read.inc(sum(planned.size for planned in piece.objects))
    metrics.bytes_written.inc(sum(len(shard.data) for shard in work.shards))
    metrics.slice_duration_seconds.labels(content_type).observe(seconds)
