"""What transform counts of a slice, read from the registry as Prometheus would."""

from __future__ import annotations

from flux_common.kernel.codes import Code
from flux_common.observability.metrics import REGISTRY
from flux_transform.domain.plan import PlannedObject
from flux_transform.domain.records import RejectedObject, Shard, SliceWork
from flux_transform.domain.slices import Slice
from flux_transform.handlers.figures import count_slice


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_slice_is_counted_by_outcome_and_size() -> None:
    """Objects written and rejected, rejects by code, bytes in and out."""
    objects = tuple(PlannedObject(key, 10, "e", "text/plain", 0) for key in ("a", "b", "c"))
    work = SliceWork(2, (Shard("texts", "parquet", b"12345", 2),), (RejectedObject("c", Code.OBJECT_EMPTY, ""),))
    names = ("flux_bytes_read_total", "flux_bytes_written_total")
    before = [value(name) for name in names]
    count_slice("figures", Slice(1, 0, objects), work, 0.5)

    assert value("flux_objects_total", content_type="figures", outcome="written") == 2
    assert value("flux_objects_total", content_type="figures", outcome="rejected") == 1
    assert [value(name) - then for name, then in zip(names, before, strict=True)] == [30, 5]
