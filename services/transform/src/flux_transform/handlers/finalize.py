"""The finalize step: join the indexes, compare every input with the plan, write metadata, and last the manifest.

Only the completion event names the manifest, by its digest, so nothing else can be read as a result. Metadata is stored
twice: under its digest, which the manifest names, and under the fixed name that its readers look for. The fixed name is
a convenience that a later attempt of the run may replace; the manifest is what counts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import zstandard

from flux_common.contracts import canonical
from flux_common.kernel.ids import manifest_uri, sha256_hex
from flux_transform import together
from flux_transform.domain.failures import chain_corrupt, plan_mismatch
from flux_transform.domain.finalize import Coverage, Summary, index_name, manifest_name, manifest_of, summarise
from flux_transform.domain.gather import Chain, chains_of
from flux_transform.domain.items import IndexName, Item, Outcome
from flux_transform.domain.records import FileEntry
from flux_transform.handlers.tools import Reached, Tools
from flux_transform.ports import Destination
from flux_transform.transforms import metadata, registry

_INDEX_BYTES_MAX = 2**30


async def handle(tools: Tools, item: Item, _reached: Reached) -> None:
    """Finalize a run (handlers.work)."""
    destination = tools.stores.destination(item)
    indexes = await together.all_of((_index(destination, item, name) for name in item.indexes), at_once=4)
    chains = [chain for found, _ in indexes for chain in found]
    name = registry.transform_name(item.job.content_type, item.job.use_case)
    summary = summarise(item, name, tools.version, chains)
    plan = await _compare(tools, destination, item, chains, summary)
    tools.check_not_dropped(item)
    described = await _describe(destination, summary)
    named = [(index, entry) for index, (_, entry) in zip(item.indexes, indexes, strict=True)]
    data = canonical.encode(manifest_of(summary, plan, named, described))
    tools.check_not_dropped(item)
    await _publish(tools, destination, item, data, _total(summary, described))


async def _index(destination: Destination, item: Item, name: IndexName) -> tuple[list[Chain], FileEntry]:
    """Read an index file and check its digest."""
    data = await destination.get(index_name(name))
    if sha256_hex(data) != name.digest:
        raise chain_corrupt(f"index {name.number} has other content")
    try:
        plain = zstandard.ZstdDecompressor().decompress(data, max_output_size=_INDEX_BYTES_MAX)
        chains = chains_of(item, name.number, json.loads(plain))
    except (zstandard.ZstdError, ValueError) as problem:
        raise chain_corrupt(f"index {name.number} cannot be read") from problem
    return chains, FileEntry(index_name(name), name.digest, len(data), len(chains))


async def _compare(
    tools: Tools, destination: Destination, item: Item, chains: Sequence[Chain], summary: Summary
) -> FileEntry:
    """Stream the plan beside the chains; return the plan as the manifest lists it."""
    if item.plan_digest is None:
        raise plan_mismatch("The item names no plan digest")
    partitions, size = await tools.plans.read_all(destination, item.plan_digest)
    coverage = Coverage(chains, canonical.digest)
    while (found := await asyncio.to_thread(next, partitions, None)) is not None:
        await asyncio.to_thread(coverage.check, *found)
        tools.check_not_dropped(item)
    coverage.close(summary.counts)
    return FileEntry(tools.plans.name(item.plan_digest), item.plan_digest, size, coverage.objects)


async def _describe(destination: Destination, summary: Summary) -> list[FileEntry]:
    """Store the dataset's metadata files; return them as the manifest lists them."""
    tables = registry.load(summary.item.job.content_type, summary.item.job.use_case).TABLES
    entries: list[FileEntry] = []
    for fixed_name, data in sorted(metadata.describe(summary, tables).items()):
        digest = sha256_hex(data)
        stem, _, extension = fixed_name.rpartition(".")
        entry = FileEntry(f"metadata/{stem}-{digest[:16]}.{extension}", digest, len(data), 0)
        await destination.put(entry.name, data)
        await destination.replace(fixed_name, data)
        entries.append(entry)
    return entries


def _total(summary: Summary, described: Sequence[FileEntry]) -> tuple[int, int]:
    """Return how many files the manifest lists as the dataset, and the rows of their tables."""
    shards = [entry for entries in summary.tables.values() for entry in entries]
    files = len(shards) + len(summary.reject_files) + len(described)
    return files, sum(entry.rows for entry in shards)


async def _publish(tools: Tools, destination: Destination, item: Item, data: bytes, total: tuple[int, int]) -> None:
    """Store the manifest and report it."""
    digest = sha256_hex(data)
    await destination.put(manifest_name(digest), data)
    uri = manifest_uri(item.job.destination_uri, item.run_id, digest)
    files, rows = total
    await tools.reporter.finished(item, Outcome(result_digest=digest, manifest_uri=uri, files=files, rows=rows))
