"""An extract item: a partition, slice by slice, from the item's cursor to the end of its range.

Slices are fetched and worked a little ahead, but stored and reported strictly in order: the record of slice n names the
digest of n - 1, and n + 1 is not sent before n is acknowledged. Between slices the fences are looked at. A file is
durable before the record that names it is, and the record before it is reported; whatever is stored and never reported
is never on a chain, and so never in a manifest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from flux_common.contracts import canonical
from flux_common.kernel.codes import Code
from flux_common.kernel.ids import sha256_hex
from flux_transform import together
from flux_transform.domain.failures import Rejected, chain_corrupt
from flux_transform.domain.items import Item, Outcome
from flux_transform.domain.plan import PlannedObject
from flux_transform.domain.records import RejectedObject, SliceWork, files_of, record_name, record_of
from flux_transform.domain.slices import Slice, cut
from flux_transform.handlers.figures import count_slice
from flux_transform.handlers.tools import Reached, Tools
from flux_transform.ports import Destination, FetchedObject, SliceTask, Source


async def handle(tools: Tools, item: Item, reached: Reached) -> None:
    """Work a partition (handlers.work)."""
    destination = tools.stores.destination(item)
    source = tools.stores.source(item)
    reached.head = _head(item)
    objects = await tools.plans.read_partition(destination, item)
    pieces = cut(objects, cursor=item.cursor, next_seq=item.next_seq, limits=tools.limits)
    async for piece, work, begun in _worked(tools, item, source, pieces):
        tools.check_not_dropped(item)
        record = await _store(destination, item, piece, work, reached.head)
        await tools.reporter.sliced(item, piece.seq, record)
        reached.last_seq, reached.head = piece.seq, sha256_hex(record)
        count_slice(item.job.content_type, piece, work, asyncio.get_running_loop().time() - begun)
        tools.check_not_dropped(item)
    await tools.reporter.finished(item, Outcome(last_seq=reached.last_seq, head=reached.head))


def _head(item: Item) -> str:
    """Return what the next record's `prev` is."""
    head = item.chain_head if item.next_seq > 1 else item.plan_digest
    if head is None:
        raise chain_corrupt("The item names no chain head to go on from")
    return head


async def _worked(
    tools: Tools, item: Item, source: Source, pieces: Iterator[Slice]
) -> AsyncIterator[tuple[Slice, SliceWork, float]]:
    """Yield slices with what was made of them and when they were begun, in order, a bounded number under way."""
    ahead: deque[tuple[Slice, asyncio.Task[SliceWork], float]] = deque()
    try:
        for piece in pieces:
            begun = asyncio.get_running_loop().time()
            ahead.append((piece, asyncio.create_task(_work(tools, item, source, piece)), begun))
            if len(ahead) == tools.slices_at_once:
                first, task, begun = ahead.popleft()
                yield first, await task, begun
        while ahead:
            first, task, begun = ahead.popleft()
            yield first, await task, begun
    finally:
        await together.stop([task for _, task, _ in ahead])


@dataclass(frozen=True, slots=True)
class _Fetched:
    """An object's fate at the source: its bytes, or why there are none."""

    object: FetchedObject | None
    reject: RejectedObject | None


async def _work(tools: Tools, item: Item, source: Source, piece: Slice) -> SliceWork:
    """Fetch a slice and work it; rejects of both steps are listed in the order of the plan."""
    fetches = (_fetch(tools, source, planned) for planned in piece.objects)
    fetched = await together.all_of(fetches, at_once=tools.fetches_at_once)
    objects = tuple(found.object for found in fetched if found.object is not None)
    job = item.job
    task = SliceTask(job.content_type, job.use_case, dict(job.options), objects, tools.limits)
    work = await tools.workers.work(task) if objects else SliceWork(0, (), ())
    rejects = [*(found.reject for found in fetched if found.reject is not None), *work.rejects]
    return SliceWork(work.written, work.shards, tuple(sorted(rejects, key=lambda reject: reject.key)))


async def _fetch(tools: Tools, source: Source, planned: PlannedObject) -> _Fetched:
    try:
        if planned.size > tools.limits.object_bytes_max:
            detail = f"{planned.size} bytes, {tools.limits.object_bytes_max} allowed"
            raise Rejected(Code.OBJECT_TOO_LARGE, detail)
        data = await source.fetch(planned)
        return _Fetched(FetchedObject(planned.key, planned.media_type, data), None)
    except Rejected as reject:
        return _Fetched(None, RejectedObject(planned.key, reject.code, reject.detail))


async def _store(destination: Destination, item: Item, piece: Slice, work: SliceWork, prev: str) -> bytes:
    """Store a slice's files, then its record; return the record's bytes."""
    files = files_of(item.number, piece.seq, work)
    await together.all_of(destination.put(file.entry.name, file.data) for file in files)
    record = canonical.encode(record_of(item, piece, work, files, prev, canonical.digest))
    await destination.put(record_name(sha256_hex(record)), record)
    return record
