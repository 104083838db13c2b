"""What goes into a slice record, and how its files are named."""

from __future__ import annotations

import json
from hashlib import sha256

from flux_common.contracts import canonical
from flux_common.contracts.progress import SliceRecord
from flux_common.kernel.codes import Code
from flux_transform.domain.items import Item, Job
from flux_transform.domain.plan import PlannedObject
from flux_transform.domain.records import (
    RejectedObject,
    Shard,
    SliceWork,
    files_of,
    inputs_of,
    json_line,
    record_of,
)
from flux_transform.domain.slices import Slice

RUN = "11111111-1111-5111-8111-111111111111"
JOB = Job("file:///a", "file:///b", "images", "research")
ITEM = Item("nasa", RUN, "r", 1, "extract", 3, 7, JOB)
OBJECTS = tuple(PlannedObject(key, 10, f"e-{key}", "image/png", 3) for key in ("a", "b", "c"))
WORK = SliceWork(
    1,
    (Shard("images", "parquet", b"parquet", 1),),
    (
        RejectedObject("b", Code.OBJECT_CORRUPT, "broken"),
        RejectedObject("c", Code.OBJECT_EMPTY, "no bytes"),
    ),
)


def test_files_are_named_by_place_and_content() -> None:
    """`part-<partition>-<seq>-<sha256[:16]>`, one file per table and one for the rejects, sorted by name."""
    files = files_of(3, 2, WORK)

    names = [file.entry.name for file in files]
    shard, rejects = (sha256(file.data).hexdigest()[:16] for file in files)

    assert names == [f"data/images/part-00003-00002-{shard}.parquet", f"rejects/part-00003-00002-{rejects}.ndjson"]
    assert [json.loads(line) for line in files[1].data.splitlines()] == [
        {"key": "b", "code": "OBJECT_CORRUPT", "detail": "broken"},
        {"key": "c", "code": "OBJECT_EMPTY", "detail": "no bytes"},
    ]


def test_a_record_is_what_the_contract_says() -> None:
    """The canonical bytes are a valid SliceRecord; counts and sizes add up; no term, time or worker is in it."""
    piece, files = Slice(2, 4, OBJECTS), files_of(3, 2, WORK)

    value = record_of(ITEM, piece, WORK, files, "0" * 64, canonical.digest)
    record = SliceRecord.model_validate(canonical.decode_exact(canonical.encode(value)))

    assert (record.read, record.written, record.rejected, record.cursor) == (3, 1, 2, 7)
    assert (record.bytes_in, record.bytes_out) == (30, sum(len(file.data) for file in files))
    assert [(reject.code, reject.count) for reject in record.rejects] == [("OBJECT_CORRUPT", 1), ("OBJECT_EMPTY", 1)]
    assert record.inputs_digest == sha256(b'[["a",10,"e-a"],["b",10,"e-b"],["c",10,"e-c"]]').hexdigest()
    assert not {"term", "time", "worker"} & value.keys()


def test_lines_are_canonical() -> None:
    """For strings and integers, the standard library's JSON with sorted names is RFC 8785, whatever the characters."""
    value = {"key": 'é\u2028"\\\n\x01\x7f😀', "size": 2**53 - 1, "a": ""}

    line = json_line(value)

    assert line.encode() == canonical.encode(value) + b"\n"


def test_inputs_are_what_the_plan_says() -> None:
    """Key, size and ETag, in order."""
    assert inputs_of(OBJECTS[:1]) == [["a", 10, "e-a"]]
