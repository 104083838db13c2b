"""What a slice did, as the values that go into its record, and the names of the files it wrote.

A record holds nothing that differs between two honest executions of one transform version: no term, no time, no
worker. Its canonical bytes are hashed into the next one (`prev`; of seq 1: the plan digest), so the head of the chain
names every input and every output of a partition. Source: docs/protocol.md, "Digests".
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from flux_common.kernel.codes import Code
from flux_common.kernel.ids import sha256_hex
from flux_transform.domain.items import Item
from flux_transform.domain.plan import PlannedObject
from flux_transform.domain.slices import Slice

RECORD_VERSION = 1

Digest = Callable[[Any], str]
"""The SHA-256 of the canonical JSON of a value (`flux_common.contracts.canonical.digest`)."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of the dataset, named relative to the run's folder; `rows` are rows or lines."""

    name: str
    sha256: str
    bytes: int
    rows: int


@dataclass(frozen=True, slots=True)
class RejectedObject:
    """An object that is left out: its key, the code and a detail without content."""

    key: str
    code: Code
    detail: str


@dataclass(frozen=True, slots=True)
class Shard:
    """The rows of one table that one slice made, as the bytes of a file."""

    table: str
    extension: str
    data: bytes
    rows: int


@dataclass(frozen=True, slots=True)
class SliceWork:
    """What working a slice made: shards in the order of their tables, rejects in the order of the slice's objects."""

    written: int
    shards: tuple[Shard, ...]
    rejects: tuple[RejectedObject, ...]


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to be stored before the record that names it is reported."""

    entry: FileEntry
    data: bytes


def files_of(partition: int, seq: int, work: SliceWork) -> tuple[NewFile, ...]:
    """Return the slice's files, sorted by name: one per shard, and one for the rejects if there are any."""
    files = [_file(f"data/{shard.table}", partition, seq, shard) for shard in work.shards]
    if work.rejects:
        listing = Shard("rejects", "ndjson", _reject_lines(work.rejects), len(work.rejects))
        files.append(_file("rejects", partition, seq, listing))
    return tuple(sorted(files, key=lambda file: file.entry.name))


def record_of(
    item: Item, piece: Slice, work: SliceWork, files: Sequence[NewFile], prev: str, digest: Digest
) -> dict[str, Any]:
    """Return the slice record as a JSON value; its canonical bytes are what is hashed, stored and reported."""
    return {
        "v": RECORD_VERSION,
        "agency_id": item.agency_id,
        "run_id": item.run_id,
        "partition": item.number,
        "seq": piece.seq,
        "prev": prev,
        "cursor": piece.cursor,
        "read": len(piece.objects),
        "written": work.written,
        "rejected": len(work.rejects),
        "bytes_in": piece.bytes,
        "bytes_out": sum(file.entry.bytes for file in files),
        "inputs_digest": digest(inputs_of(piece.objects)),
        "outputs": [entry_value(file.entry) for file in files],
        "rejects": reject_counts(Counter(str(reject.code) for reject in work.rejects)),
    }


def inputs_of(objects: Iterable[PlannedObject]) -> list[list[str | int]]:
    """Return what `inputs_digest` is taken of: `[[key, size, etag], …]` as the plan has it (docs/protocol.md)."""
    return [[planned.key, planned.size, planned.etag] for planned in objects]


def entry_value(entry: FileEntry) -> dict[str, str | int]:
    """Return a file entry as a JSON value."""
    return {"name": entry.name, "sha256": entry.sha256, "bytes": entry.bytes, "rows": entry.rows}


def reject_counts(counts: Counter[str]) -> list[dict[str, str | int]]:
    """Return counted codes as a JSON value, sorted by code."""
    return [{"code": code, "count": count} for code, count in sorted(counts.items())]


def record_name(digest: str) -> str:
    """Return the name of the slice record with this digest."""
    return f"records/{digest}.json"


def _file(folder: str, partition: int, seq: int, shard: Shard) -> NewFile:
    """Name a file by its place in the run and its content: `part-<partition>-<seq>-<sha256[:16]>.<ext>`."""
    sha256 = sha256_hex(shard.data)
    name = f"{folder}/part-{partition:05d}-{seq:05d}-{sha256[:16]}.{shard.extension}"
    return NewFile(FileEntry(name, sha256, len(shard.data), shard.rows), shard.data)


def _reject_lines(rejects: Iterable[RejectedObject]) -> bytes:
    lines = ({"key": reject.key, "code": str(reject.code), "detail": reject.detail} for reject in rejects)
    return "".join(json_line(line) for line in lines).encode()


def json_line(value: dict[str, Any]) -> str:
    """Return one line of an ndjson file: sorted names, no spaces; for strings and integers this is RFC 8785."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
