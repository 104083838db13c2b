"""I9 from tables and events: a completed run has all its partitions, and its counts are those of its slices.

What lies in the store is files.py's matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from flux_common.contracts import catalogue
from flux_common.contracts.canonical import digest
from flux_common.kernel.positions import TopicPartition
from flux_devkit.oracle.chains import COUNTS
from flux_devkit.oracle.report import Violation
from flux_devkit.oracle.rows import ItemRow, RunRow
from flux_devkit.oracle.world import World, json_of

GATHER_HEADS_MAX = 1000


def completed_runs_add_up(world: World) -> Iterator[Violation]:
    """I9: every planned partition is finished at its end, and Σ partitions = plan = read = written + rejected."""
    for key, run in world.runs.items():
        if run.state == "COMPLETED":
            items = world.items_of.get(key, [])
            for what in _faults(run, items):
                yield Violation("I9", what, (run.agency_id, str(run.run_id)))


def _faults(run: RunRow, items: list[ItemRow]) -> Iterator[str]:
    partitions = [item for item in items if item.kind == "extract"]
    if [item.number for item in partitions] != list(range(run.partitions)) or not partitions:
        yield f"{len(partitions)} partitions, {run.partitions} planned"
    if any(item.state != "FINISHED" for item in items):
        yield "an item is not finished"
    if any(item.cursor != item.object_count or item.last_seq == 0 for item in partitions):
        yield "a partition is not at its end"
    if sum(item.object_count for item in partitions) != run.objects:
        yield "the partitions do not hold the planned objects"
    for name in COUNTS:
        if sum(getattr(item, name) for item in partitions) != getattr(run, name):
            yield f"the partitions do not make the run's {name}"
    if not run.read == run.objects == run.written + run.rejected:
        yield f"planned {run.objects}, read {run.read}, written {run.written}, rejected {run.rejected}"
    if run.bytes_in != run.bytes_planned:
        yield f"{run.bytes_planned} bytes were planned, {run.bytes_in} read"
    yield from _steps(run, items)


def _steps(run: RunRow, items: list[ItemRow]) -> Iterator[str]:
    kinds = Counter(item.kind for item in items)
    expected = {"plan": 1, "gather": -(-run.partitions // GATHER_HEADS_MAX), "finalize": 1}
    for kind, number in expected.items():
        if kinds[kind] != number:
            yield f"{kinds[kind]} {kind} steps, not {number}"
    results = {item.kind: item.result_digest for item in items if item.kind in ("plan", "finalize")}
    if results != {"plan": run.plan_digest, "finalize": run.manifest_digest}:
        yield "plan or manifest is not the one that its step reported"


def partitions_balance(world: World) -> Iterator[Violation]:
    """I9: read = written + rejected, of every item at every moment, and never beyond its range."""
    for item in world.tables.items:
        if item.read != item.written + item.rejected:
            yield Violation("I9", f"read {item.read}, written {item.written}, rejected {item.rejected}", (item.name,))
        if item.cursor > item.object_count:
            yield Violation("I9", f"the cursor {item.cursor} is beyond {item.object_count} objects", (item.name,))


def completions_say_what_was_done(world: World) -> Iterator[Violation]:
    """I9: the completion's plan, counts, chain root and manifest are the run's."""
    for event in world.on(catalogue.COMPLETIONS):
        run = world.runs.get(event.about) if event.about is not None else None
        if event.type == catalogue.RUN_COMPLETED.ce_type and run is not None:
            for name, value in _expected(world, run).items():
                if event.get(name) != value:
                    what = f"the completion says {name} = {event.get(name)}, the rows {value}"
                    yield Violation("I9", what, (str(run.run_id), event.name))


def _expected(world: World, run: RunRow) -> dict[str, Any]:
    partitions = [item for item in world.items_of.get((run.agency_id, run.run_id), []) if item.kind == "extract"]
    rejects: Counter[str] = Counter()
    for item in partitions:
        rejects.update(json_of(item.rejects) or {})
    return {
        "partitions": len(partitions),
        "objects": run.objects,
        "counts": {name: sum(getattr(item, name) for item in partitions) for name in COUNTS},
        "rejects_by_code": dict(rejects),
        "plan_digest": _hex(run.plan_digest),
        "chain_root": digest([_hex(item.chain_head) for item in partitions]),
        "transform_version": run.transform_version or "",
        "manifest": {
            "uri": run.manifest_uri,
            "sha256": _hex(run.manifest_digest),
            "files": run.manifest_files,
            "rows": run.manifest_rows,
        },
    }


def _hex(value: bytes | None) -> str | None:
    return value.hex() if value is not None else None


def plans_are_as_reported(world: World) -> Iterator[Violation]:
    """I9: a run's plan is the one that the last applied `planned` report states."""
    applied = [row for row in world.tables.history if row.type == catalogue.PLANNED.ce_type]
    last = {(row.agency_id, row.run_id): row for row in sorted(applied, key=lambda row: row.event_no)}
    for key, row in last.items():
        place = TopicPartition(catalogue.PROGRESS.name, row.kafka_partition or 0).at(row.kafka_offset or 0)
        run, record = world.runs.get(key), world.record(place)
        if run is None or record is None:
            continue
        body = json_of(record.value) or {}
        said = [body.get(name) for name in ("plan_digest", "objects", "partitions", "bytes")]
        if said != [_hex(run.plan_digest), run.objects, list(run.partition_objects), run.bytes_planned]:
            yield Violation("I9", "the run's plan is not the one that was reported", (str(run.run_id), str(place)))


CHECKS = (completed_runs_add_up, partitions_balance, completions_say_what_was_done, plans_are_as_reported)
