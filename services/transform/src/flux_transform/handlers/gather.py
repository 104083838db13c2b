"""A gather step: walk the chains of up to 1,000 partitions from their heads, and write one index of their outputs."""

from __future__ import annotations

import zstandard
from pydantic import ValidationError

from flux_common.contracts import canonical
from flux_common.contracts.progress import SliceRecord
from flux_common.kernel.errors import ValidationFailed
from flux_common.kernel.ids import sha256_hex
from flux_transform import together
from flux_transform.domain.failures import chain_corrupt
from flux_transform.domain.finalize import index_name
from flux_transform.domain.gather import Chain, ChainWalk, Link, check_heads, index_of
from flux_transform.domain.items import Head, IndexName, Item, Outcome
from flux_transform.domain.records import FileEntry, record_name
from flux_transform.handlers.tools import Reached, Tools
from flux_transform.ports import Destination

_LEVEL = 9


async def handle(tools: Tools, item: Item, _reached: Reached) -> None:
    """Gather some partitions (handlers.work)."""
    check_heads(item.heads, tools.limits.gather_heads_max)
    destination = tools.stores.destination(item)
    walks = (_walk(destination, item, head) for head in item.heads)
    chains = await together.all_of(walks, at_once=tools.reads_at_once)
    data = encode_index(canonical.encode(index_of(item, chains)))
    name = IndexName(item.number, sha256_hex(data))
    await destination.put(index_name(name), data)
    tools.check_not_dropped(item)
    entries = [entry for chain in chains for link in chain.links for entry in link.outputs]
    rows = sum(entry.rows for entry in entries)
    await tools.reporter.finished(item, Outcome(result_digest=name.digest, files=len(entries), rows=rows))


def encode_index(plain: bytes) -> bytes:
    """Return an index compressed; the bytes depend on the index and the pinned zstandard alone."""
    return zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True, threads=0).compress(plain)


async def _walk(destination: Destination, item: Item, head: Head) -> Chain:
    walk = ChainWalk(item, head)
    while walk.wanted is not None:
        walk.take(read_link(walk.wanted, await destination.get(record_name(walk.wanted))))
    return walk.chain()


def read_link(digest: str, data: bytes) -> Link:
    """Return a stored slice record as a link.

    Raises:
        WorkFailed: `CHAIN_CORRUPT`, its bytes do not have that digest or are no slice record.
    """
    if sha256_hex(data) != digest:
        raise chain_corrupt(f"record {digest} has other content")
    try:
        record = SliceRecord.model_validate(canonical.decode_exact(data))
    except (ValidationFailed, ValidationError) as problem:
        raise chain_corrupt(f"record {digest} is no slice record") from problem
    return Link(
        digest=digest,
        agency_id=record.agency_id,
        run_id=record.run_id,
        partition=record.partition,
        seq=record.seq,
        prev=record.prev,
        cursor=record.cursor,
        read=record.read,
        written=record.written,
        rejected=record.rejected,
        bytes_in=record.bytes_in,
        bytes_out=record.bytes_out,
        inputs_digest=record.inputs_digest,
        outputs=tuple(FileEntry(entry.name, entry.sha256, entry.bytes, entry.rows) for entry in record.outputs),
        rejects=tuple((reject.code, reject.count) for reject in record.rejects),
    )
