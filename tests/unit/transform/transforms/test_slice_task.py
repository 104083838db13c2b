"""What a worker process does with a slice, without the process."""

from __future__ import annotations

import io

import pyarrow.parquet as pq

from flux_common.kernel.codes import Code
from flux_transform.domain.limits import DEFAULT_LIMITS
from flux_transform.ports import FetchedObject, SliceTask
from flux_transform.transforms import slice_task

OBJECTS = tuple(FetchedObject(key, "text/plain", data) for key, data in (("a", b"alpha"), ("b", b""), ("c", b"gamma")))
TASK = SliceTask("text", "research", {}, OBJECTS, DEFAULT_LIMITS)


def test_a_slice_makes_one_shard_per_table_and_counts_its_rejects() -> None:
    """Written and rejected add up to what was read."""
    work = slice_task.work_slice(TASK)

    texts = {shard.table: pq.read_table(io.BytesIO(shard.data)).to_pylist() for shard in work.shards}["texts"]
    assert [shard.table for shard in work.shards] == ["chunks", "texts"]
    assert [row["key"] for row in texts] == ["a", "c"]
    assert work.written == 2
    assert [(reject.key, reject.code) for reject in work.rejects] == [("b", Code.OBJECT_EMPTY)]


def test_one_at_a_time_makes_the_same_bytes() -> None:
    """A slice that is redone object by object ends in the same files."""
    works = [slice_task.work_alone(TASK, source) for source in OBJECTS]

    assert slice_task.write(TASK, works) == slice_task.work_slice(TASK)


def test_a_table_without_rows_has_no_shard() -> None:
    """A slice of rejects writes nothing."""
    work = slice_task.work_slice(SliceTask("images", "research", {}, OBJECTS, DEFAULT_LIMITS))

    assert (work.written, work.shards, len(work.rejects)) == (0, (), 3)
