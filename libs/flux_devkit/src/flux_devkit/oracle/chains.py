"""I3: the slices of each partition are gap-free from 1, each links to the one before, and the item stands at the end.

The records' bytes are believed as far as their SHA-256 is the hash row's; from them the cursors and counts are added up
again, and the item must say the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from flux_devkit.oracle.report import Violation
from flux_devkit.oracle.rows import HashRow, ItemRow, RunRow
from flux_devkit.oracle.world import World, json_of, repeated

COUNTS = ("read", "written", "rejected", "bytes_in", "bytes_out")


def chains_link(world: World) -> Iterator[Violation]:
    """I3: seq runs from 1 without a gap; prev of the first is the plan digest, of each other the hash before it."""
    for key, rows in world.chains.items():
        run = world.runs.get(key[:2])
        before = run.plan_digest if run is not None else None
        for expected, row in enumerate(rows, 1):
            if row.seq != expected:
                yield Violation("I3", f"seq {expected} is missing or repeated", (row.name,))
                break
            if row.prev != before and run is not None:
                yield Violation("I3", "prev is not the hash before it", (row.name,))
            before = row.hash


def items_stand_at_their_heads(world: World) -> Iterator[Violation]:
    """I3: an item's last_seq and chain head are those of its last hash row; every chain has its item."""
    for key, item in world.items.items():
        rows = world.chains.get(key, []) if item.kind == "extract" else []
        last_seq, head = (rows[-1].seq, rows[-1].hash) if rows else (0, None)
        if item.last_seq != last_seq:
            yield Violation("I3", f"last_seq is {item.last_seq}, the chain ends at {last_seq}", (item.name,))
        if item.kind == "extract" and item.chain_head != head:
            yield Violation("I3", "the chain head is not the hash of the last slice", (item.name,))
    for key in world.chains.keys() - world.items.keys():
        yield Violation("I3", "a chain without an item", (f"{key[1]}/extract/{key[3]}",))


def slices_are_unique(world: World) -> Iterator[Violation]:
    """I3: no slice is applied twice, and no record is two slices."""
    for key, rows in repeated(world.tables.hashes, lambda row: (row.run_id, row.number, row.seq)):
        yield Violation("I3", "a slice was applied twice", (" ".join(map(str, key)), *(row.agency_id for row in rows)))
    for _, rows in repeated(world.tables.hashes, lambda row: row.hash):
        yield Violation("I3", "two slices have one hash", tuple(row.name for row in rows))


def cursors_and_counts_follow(world: World) -> Iterator[Violation]:
    """I3: the records, added up, make the item's cursor, counts and rejects."""
    for key, rows in world.chains.items():
        item = world.items.get(key)
        bodies = [world.slice_body(row) for row in rows]
        if item is not None and all(bodies):
            yield from _cursors(rows, bodies)
            yield from _sums(item, bodies)


def _cursors(rows: Sequence[HashRow], bodies: Sequence[dict[str, Any]]) -> Iterator[Violation]:
    cursor = 0
    for row, body in zip(rows, bodies, strict=True):
        if (body["seq"], body["prev"]) != (row.seq, row.prev.hex()):
            yield Violation("I3", "the hash row has another seq or prev than the record", (row.name,))
        cursor += body["read"]
        if body["cursor"] != cursor:
            yield Violation("I3", f"the cursor is {body['cursor']}, {cursor} objects were read", (row.name,))


def _sums(item: ItemRow, bodies: Sequence[dict[str, Any]]) -> Iterator[Violation]:
    rejects: Counter[str] = Counter()
    for body in bodies:
        rejects.update({one["code"]: one["count"] for one in body["rejects"]})
    if item.cursor != bodies[-1]["cursor"]:
        yield Violation("I3", f"the cursor is {item.cursor}, the chain's is {bodies[-1]['cursor']}", (item.name,))
    for name in COUNTS:
        stated, found = getattr(item, name), sum(body[name] for body in bodies)
        if stated != found:
            yield Violation("I3", f"{name} is {stated}, the slices make {found}", (item.name,))
    if json_of(item.rejects) != dict(rejects):
        yield Violation("I3", "the rejects by code are not those of the slices", (item.name,))


def partitions_follow_the_plan(world: World) -> Iterator[Violation]:
    """I3: the partitions that were made are numbered without a gap, and their ranges lie end to end as planned."""
    for key, run in world.runs.items():
        made = [item for item in world.items_of.get(key, []) if item.kind == "extract"]
        yield from _ranges(run, made)


def _ranges(run: RunRow, made: Sequence[ItemRow]) -> Iterator[Violation]:
    counts = run.partition_objects[: run.partitions_made]
    planned = list(zip(range(len(counts)), accumulate(counts, initial=0), counts, strict=False))
    if [(item.number, item.first_object, item.object_count) for item in made] != planned:
        yield Violation("I3", "the partitions are not the ranges of the plan", (str(run.run_id),))
    if run.objects_made != sum(counts):
        yield Violation("I3", f"objects_made is {run.objects_made}, the ranges hold {sum(counts)}", (str(run.run_id),))
    if run.plan_digest is not None and sum(run.partition_objects) != run.objects:
        yield Violation("I3", "the planned ranges do not add up to the planned objects", (str(run.run_id),))
    if run.plan_digest is not None and len(run.partition_objects) != run.partitions:
        yield Violation("I3", "the plan has another number of partitions", (str(run.run_id),))


CHECKS = (
    chains_link,
    items_stand_at_their_heads,
    slices_are_unique,
    cursors_and_counts_follow,
    partitions_follow_the_plan,
)
