"""I3 and I9 in the store, for runs whose destination is a `file://` URI: everything that is named is there and hashes.

Every slice record on a chain lies under its hash. Of a completed run: the plan and the manifest hash to the digests of
the run, each chain's inputs are exactly its range of the plan, and every file that the manifest lists has its bytes.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import zstandard

from flux_common.contracts.canonical import digest
from flux_devkit.oracle.report import Violation
from flux_devkit.oracle.rows import HashRow, RunRow
from flux_devkit.oracle.world import World, json_of

Inputs = dict[int, list[list[Any]]]


def local_path(uri: str) -> Path | None:
    """Return the path of a `file://` URI; None for any other."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def folder_of(run: RunRow) -> Path | None:
    """Return the folder of a run, where its destination is a local one."""
    place = local_path((json_of(run.request) or {}).get("destination", {}).get("uri", ""))
    return place / str(run.run_id) if place is not None else None


def records_lie_in_the_store(world: World) -> Iterator[Violation]:
    """I3: each applied slice's record lies at `records/<hash>.json` and has that hash."""
    for row in world.tables.hashes:
        run = world.runs.get((row.agency_id, row.run_id))
        folder = folder_of(run) if run is not None else None
        if folder is None:
            continue
        path = folder / "records" / f"{row.hash.hex()}.json"
        if not path.is_file():
            yield Violation("I3", "the slice record is not in the store", (row.name, str(path)))
        elif sha256(path.read_bytes()).digest() != row.hash:
            yield Violation("I3", "the slice record in the store has another hash", (row.name, str(path)))


def chains_read_their_plan(world: World) -> Iterator[Violation]:
    """I9: the plan hashes to its digest, and each slice's inputs are its range of it, in every planned run."""
    for run in world.tables.runs:
        folder = folder_of(run)
        if folder is None or run.plan_digest is None:
            continue
        path = folder / f"plan-{run.plan_digest.hex()}.ndjson.zst"
        data = path.read_bytes() if path.is_file() else b""
        if sha256(data).digest() != run.plan_digest:
            yield Violation("I9", "the plan in the store is missing or another", (str(run.run_id), str(path)))
        else:
            yield from _chains(world, run, read_plan(data))


def read_plan(data: bytes) -> Inputs:
    """Return `[key, size, etag]` of every planned object, by partition, from a plan file's bytes."""
    plan: Inputs = defaultdict(list)
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True) as plain:
        for line in plain.read().splitlines():
            one = json_of(line)
            plan[one["partition"]].append([one["key"], one["size"], one["etag"]])
    return plan


def _chains(world: World, run: RunRow, plan: Inputs) -> Iterator[Violation]:
    if [len(plan[number]) for number in sorted(plan)] != list(run.partition_objects):
        yield Violation("I9", "the plan's partitions are not those of the run", (str(run.run_id),))
    for number, objects in plan.items():
        rows = world.chains.get((run.agency_id, run.run_id, "extract", number), [])
        for row in rows:
            yield from _inputs(world, row, objects)
        if run.state == "COMPLETED":
            read = sum(_body(world, row).get("read", 0) for row in rows)
            if read != len(objects):
                yield Violation(
                    "I9", f"{read} of {len(objects)} objects were read", (f"{run.run_id}/extract/{number}",)
                )


def _inputs(world: World, row: HashRow, objects: list[list[Any]]) -> Iterator[Violation]:
    body = _body(world, row)
    if not body:
        yield Violation("I9", "the slice record cannot be read anywhere", (row.name,))
    elif body["inputs_digest"] != digest(objects[body["cursor"] - body["read"] : body["cursor"]]):
        yield Violation("I9", "a slice did not read its range of the plan", (row.name,))


def _body(world: World, row: HashRow) -> dict[str, Any]:
    """Return a slice record: from its topic or the history, else from the store."""
    folder = folder_of(world.runs[(row.agency_id, row.run_id)])
    path = folder / "records" / f"{row.hash.hex()}.json" if folder is not None else None
    body = world.slice_body(row) or (json_of(path.read_bytes()) if path is not None and path.is_file() else None)
    return body if isinstance(body, dict) else {}


def manifests_are_whole(world: World) -> Iterator[Violation]:
    """I9: the manifest hashes to the completion's digest, and every file that it lists is there with its bytes."""
    for run in world.tables.runs:
        folder = folder_of(run)
        if folder is None or run.state != "COMPLETED" or run.manifest_digest is None:
            continue
        path = local_path(run.manifest_uri or "")
        data = path.read_bytes() if path is not None and path.is_file() else b""
        if path is None or sha256(data).digest() != run.manifest_digest or path.parent.resolve() != folder.resolve():
            yield Violation("I9", "the manifest is missing, another, or not the run's", (str(run.run_id), str(path)))
            continue
        manifest = json_of(data) or {}
        yield from _counts(world, run, manifest)
        for file in _listed(manifest):
            yield from _file(run, folder, file)


def _counts(world: World, run: RunRow, manifest: dict[str, Any]) -> Iterator[Violation]:
    names = ("read", "written", "rejected", "bytes_in", "bytes_out")
    if manifest.get("counts") != {name: getattr(run, name) for name in names}:
        yield Violation("I9", "the manifest's counts are not the run's", (str(run.run_id),))
    items = [item for item in world.items_of.get((run.agency_id, run.run_id), []) if item.kind == "extract"]
    heads = [
        {"number": item.number, "last_seq": item.last_seq, "head": item.chain_head.hex() if item.chain_head else None}
        for item in items
    ]
    if manifest.get("partitions") != heads:
        yield Violation("I9", "the manifest's chain heads are not the partitions'", (str(run.run_id),))


def _listed(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every file entry of a manifest, wherever it stands."""
    if isinstance(value, dict) and {"name", "sha256", "bytes"} <= value.keys():
        yield value
    elif isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _listed(child)


def _file(run: RunRow, folder: Path, file: dict[str, Any]) -> Iterator[Violation]:
    path = folder / str(file["name"])
    if not path.is_file():
        yield Violation("I9", "a file of the manifest is not there", (str(run.run_id), str(path)))
        return
    with path.open("rb") as source:
        found = (path.stat().st_size, file_digest(source, "sha256").hexdigest())
    if found != (file["bytes"], file["sha256"]):
        yield Violation("I9", "a file of the manifest has other bytes", (str(run.run_id), str(path)))


CHECKS = (records_lie_in_the_store, chains_read_their_plan, manifests_are_whole)
