"""The end of a run: do the chains cover the plan, exactly, and what does the manifest say?

Invariant I9 (docs/semantics.md): each chain's inputs are its range of the plan, the counts add up to the plan's, and
read = written + rejected. The plan is streamed once beside the chains, so memory holds one partition's lines at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flux_common.kernel.codes import Code
from flux_transform.domain.failures import WorkFailed, chain_corrupt
from flux_transform.domain.gather import Chain, Link
from flux_transform.domain.items import IndexName, Item
from flux_transform.domain.plan import PlannedObject
from flux_transform.domain.records import Digest, FileEntry, entry_value, inputs_of, reject_counts

MANIFEST_VERSION = 1


@dataclass(frozen=True, slots=True)
class Counts:
    """Objects and bytes of a run; read = written + rejected."""

    read: int = 0
    written: int = 0
    rejected: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def plus(self, link: Link) -> Counts:
        """Return these counts with one more slice."""
        return Counts(
            self.read + link.read,
            self.written + link.written,
            self.rejected + link.rejected,
            self.bytes_in + link.bytes_in,
            self.bytes_out + link.bytes_out,
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """All that metadata and manifest are made from: the item, the counts, the files by table."""

    item: Item
    transform: str
    transform_version: str
    counts: Counts
    rejects: tuple[tuple[str, int], ...]
    partitions: tuple[tuple[int, int, str], ...]
    tables: dict[str, tuple[FileEntry, ...]]
    reject_files: tuple[FileEntry, ...]


class Coverage:
    """Checks chains against the plan, partition by partition, in order; `close` checks that nothing is left over."""

    def __init__(self, chains: Sequence[Chain], digest: Digest) -> None:
        self._chains = sorted(chains, key=lambda chain: chain.partition)
        self._digest = digest
        self._next = 0
        self.objects = 0
        self.bytes = 0

    def check(self, partition: int, objects: Sequence[PlannedObject]) -> None:
        """Check that the next chain is this partition's and that its slices' inputs are exactly these objects.

        Raises:
            WorkFailed: `CHAIN_CORRUPT` (a slice read something else), `COUNTS_MISMATCH` (too few or too many objects).
        """
        if self._next >= len(self._chains) or self._chains[self._next].partition != partition:
            raise _counts_mismatch(f"partition {partition} of the plan has no chain of its own")
        chain = self._chains[self._next]
        for link in chain.links:
            if self._digest(inputs_of(objects[link.cursor - link.read : link.cursor])) != link.inputs_digest:
                raise chain_corrupt(f"partition {partition} seq {link.seq} did not read its range of the plan")
        if chain.links[-1].cursor != len(objects):
            raise _counts_mismatch(f"partition {partition}: {chain.links[-1].cursor} of {len(objects)} objects read")
        self._next += 1
        self.objects += len(objects)
        self.bytes += sum(planned.size for planned in objects)

    def close(self, counts: Counts) -> None:
        """Check that every chain was compared and that the sums agree.

        Raises:
            WorkFailed: `COUNTS_MISMATCH`.
        """
        if self._next != len(self._chains):
            raise _counts_mismatch(f"{len(self._chains) - self._next} chains belong to no partition of the plan")
        expected = (self.objects, self.bytes, counts.written + counts.rejected)
        if (counts.read, counts.bytes_in, counts.read) != expected:
            raise _counts_mismatch("the sums of the slices are not those of the plan")


def _counts_mismatch(message: str) -> WorkFailed:
    return WorkFailed(Code.COUNTS_MISMATCH, message, cause="transform")


def summarise(item: Item, transform: str, transform_version: str, chains: Sequence[Chain]) -> Summary:
    """Fold the chains into what metadata and manifest say."""
    counts, rejects = Counts(), Counter[str]()
    tables: dict[str, list[FileEntry]] = {}
    ordered = sorted(chains, key=lambda chain: chain.partition)
    for link in (link for chain in ordered for link in chain.links):
        counts = counts.plus(link)
        rejects.update(dict(link.rejects))
        for entry in link.outputs:
            tables.setdefault(_table_of(entry), []).append(entry)
    reject_files = tuple(tables.pop("", []))
    return Summary(
        item=item,
        transform=transform,
        transform_version=transform_version,
        counts=counts,
        rejects=tuple(sorted(rejects.items())),
        partitions=tuple((chain.partition, chain.links[-1].seq, chain.head) for chain in ordered),
        tables={name: tuple(tables[name]) for name in sorted(tables)},
        reject_files=reject_files,
    )


def _table_of(entry: FileEntry) -> str:
    """Return the table of a file by its folder, and nothing for a list of rejects."""
    folder, _, rest = entry.name.partition("/")
    return rest.split("/", 1)[0] if folder == "data" else ""


def manifest_of(
    summary: Summary, plan: FileEntry, indexes: Sequence[tuple[IndexName, FileEntry]], metadata: Sequence[FileEntry]
) -> dict[str, Any]:
    """Return the manifest as a JSON value: from it a reader can walk to every file, record and source object."""
    item = summary.item
    return {
        "v": MANIFEST_VERSION,
        "agency_id": item.agency_id,
        "run_id": item.run_id,
        "request_id": item.request_id,
        "content_type": item.job.content_type,
        "use_case": item.job.use_case,
        "source": {
            "uri": item.job.source_uri,
            "include": list(item.job.include),
            "exclude": list(item.job.exclude),
        },
        "labels": dict(item.job.labels),
        "transform": {"name": summary.transform, "version": summary.transform_version},
        "plan": entry_value(plan),
        "counts": counts_value(summary.counts),
        "rejects": reject_counts(Counter(dict(summary.rejects))),
        "partitions": [
            {"number": number, "last_seq": last_seq, "head": head} for number, last_seq, head in summary.partitions
        ],
        "indexes": [{"number": name.number, **entry_value(entry)} for name, entry in indexes],
        "tables": {name: [entry_value(entry) for entry in entries] for name, entries in summary.tables.items()},
        "reject_files": [entry_value(entry) for entry in summary.reject_files],
        "metadata": [entry_value(entry) for entry in metadata],
    }


def counts_value(counts: Counts) -> dict[str, int]:
    """Return counts as a JSON value."""
    return {
        "read": counts.read,
        "written": counts.written,
        "rejected": counts.rejected,
        "bytes_in": counts.bytes_in,
        "bytes_out": counts.bytes_out,
    }


def manifest_name(digest: str) -> str:
    """Return the name of the manifest with this digest."""
    return f"manifest-{digest}.json"


def index_name(name: IndexName) -> str:
    """Return the name of an index file."""
    return f"index/index-{name.number:05d}-{name.digest}.json.zst"
