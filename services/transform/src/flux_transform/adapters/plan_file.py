"""The plan as a file: ndjson under zstd, one frame per partition, named by the SHA-256 of the compressed bytes.

Any zstd reader sees one ndjson stream. A worker that needs one partition of a million objects reads that partition's
frame alone: the last frame is a seek table, in a skippable frame as Zstandard's seekable format has it
(facebook/zstd, contrib/seekable_format/zstd_seekable_compression_format.md, without checksums). The bytes depend on the
plan and on the pinned zstandard alone.

A small plan is read whole and its digest checked; a range of a large one is believed if it says that it is the wanted
partition, because finalize reads the whole plan, checks its digest and compares every input with it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

import zstandard

from flux_common.kernel.ids import sha256_hex
from flux_transform.domain.failures import NotStored, plan_mismatch
from flux_transform.domain.items import Item
from flux_transform.domain.plan import PlannedObject
from flux_transform.domain.records import json_line
from flux_transform.ports import Destination

_LEVEL: Final = 9
_SKIPPABLE_MAGIC: Final = 0x184D2A5E
_SEEKABLE_MAGIC: Final = 0x8F92EAB1
_ENTRY: Final = struct.Struct("<II")
_FOOTER: Final = struct.Struct("<IBI")
_TAIL_BYTES: Final = 64 * 2**10
_WHOLE_BYTES_MAX: Final = 2**20
_FRAME_BYTES_MAX: Final = 2**30


def plan_name(digest: str) -> str:
    """Return the name of the plan file with this digest."""
    return f"plan-{digest}.ndjson.zst"


class PlanFiles:
    """Writes and reads plan files (ports.Plans)."""

    def name(self, digest: str) -> str:
        """Return the name of the plan file with this digest."""
        return plan_name(digest)

    def encode(self, objects: Iterable[PlannedObject]) -> bytes:
        """Return the plan file of planned objects, which are in order of their partitions."""
        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True, threads=0)
        frames: list[bytes] = []
        table: list[bytes] = []
        for _, lines in groupby(objects, key=lambda planned: planned.partition):
            plain = "".join(_line(planned) for planned in lines).encode()
            frames.append(compressor.compress(plain))
            table.append(_ENTRY.pack(len(frames[-1]), len(plain)))
        return b"".join([*frames, _seek_table(table)])

    async def read_partition(self, store: Destination, item: Item) -> tuple[PlannedObject, ...]:
        """Return the planned objects of an extract item's partition.

        Raises:
            WorkFailed: `PLAN_MISMATCH`, the stored plan is not the run's or has no such partition.
        """
        digest = item.plan_digest or ""
        try:
            tail, size = await store.get_tail(plan_name(digest), _TAIL_BYTES)
            if size <= _WHOLE_BYTES_MAX:
                frame = _frame_of(await _whole(store, digest), item.number)
            else:
                start, end = await _frame_range(store, digest, item.number, tail, size)
                frame = await store.get_range(plan_name(digest), start, end)
        except NotStored as problem:
            raise plan_mismatch("The plan is not in the store") from problem
        objects = tuple(_parsed(_plain(frame)))
        if len(objects) != item.count or any(planned.partition != item.number for planned in objects):
            raise plan_mismatch(f"Partition {item.number} of the plan is not as dispatched")
        return objects

    async def read_all(
        self, store: Destination, digest: str
    ) -> tuple[Iterator[tuple[int, tuple[PlannedObject, ...]]], int]:
        """Return an iterator over (partition, its objects), after checking the digest; and the file's size in bytes.

        Raises:
            WorkFailed: `PLAN_MISMATCH`.
        """
        try:
            data = await _whole(store, digest)
        except NotStored as problem:
            raise plan_mismatch("The plan is not in the store") from problem
        ranges = _ranges(data, len(data))
        return ((number, tuple(_parsed(_plain(data[a:b])))) for number, (a, b) in enumerate(ranges)), len(data)


def _line(planned: PlannedObject) -> str:
    return json_line(
        {
            "key": planned.key,
            "size": planned.size,
            "etag": planned.etag,
            "media_type": planned.media_type,
            "partition": planned.partition,
        }
    )


def _seek_table(entries: list[bytes]) -> bytes:
    size = len(entries) * _ENTRY.size + _FOOTER.size
    return b"".join([_ENTRY.pack(_SKIPPABLE_MAGIC, size), *entries, _FOOTER.pack(len(entries), 0, _SEEKABLE_MAGIC)])


async def _whole(store: Destination, digest: str) -> bytes:
    data = await store.get(plan_name(digest))
    if sha256_hex(data) != digest:
        raise plan_mismatch("The stored plan does not have the digest that names it")
    return data


def _frame_of(data: bytes, partition: int) -> bytes:
    ranges = _ranges(data, len(data))
    if partition >= len(ranges):
        raise plan_mismatch(f"The plan has no partition {partition}")
    start, end = ranges[partition]
    return data[start:end]


async def _frame_range(store: Destination, digest: str, partition: int, tail: bytes, size: int) -> tuple[int, int]:
    """Find a frame by the seek table, which is read again if it is longer than the tail that was read."""
    needed = _table_bytes(tail)
    if needed > len(tail):
        tail, size = await store.get_tail(plan_name(digest), needed)
    ranges = _ranges(tail, size)
    if partition >= len(ranges):
        raise plan_mismatch(f"The plan has no partition {partition}")
    return ranges[partition]


def _table_bytes(tail: bytes) -> int:
    """Return the size of the seek table's frame, from its footer."""
    if len(tail) < _FOOTER.size:
        raise plan_mismatch("The plan has no seek table")
    count, flags, magic = _FOOTER.unpack(tail[-_FOOTER.size :])
    if magic != _SEEKABLE_MAGIC or flags:
        raise plan_mismatch("The plan has no seek table")
    return int(_ENTRY.size + count * _ENTRY.size + _FOOTER.size)


def _ranges(tail: bytes, size: int) -> list[tuple[int, int]]:
    """Return where each frame lies, and check that the frames and the table fill the file exactly."""
    length = _table_bytes(tail)
    entries = tail[-length:][_ENTRY.size : -_FOOTER.size]
    ranges, start = [], 0
    for compressed, _ in _ENTRY.iter_unpack(entries):
        ranges.append((start, start + compressed))
        start += compressed
    if start + length != size:
        raise plan_mismatch("The plan's seek table does not fit its size")
    return ranges


def _plain(frame: bytes) -> bytes:
    try:
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=_FRAME_BYTES_MAX)
    except zstandard.ZstdError as problem:
        raise plan_mismatch("A frame of the plan cannot be read") from problem


def _parsed(plain: bytes) -> Iterator[PlannedObject]:
    try:
        for line in plain.decode().split("\n")[:-1]:
            yield PlannedObject(**json.loads(line))
    except (ValueError, TypeError) as problem:
        raise plan_mismatch("A line of the plan cannot be read") from problem
