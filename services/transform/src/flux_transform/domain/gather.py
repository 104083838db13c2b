"""Walking a partition's chain of slice records from its head back to the plan.

The head, which checkpoint has applied, is the authority; the files in the store are only believed as far as their
digests lead there. A record of another run, a gap, a count that does not add up or a chain that does not end in the
plan fails the run, because then the store does not hold what was reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flux_transform.domain.failures import chain_corrupt
from flux_transform.domain.items import Head, Item
from flux_transform.domain.records import FileEntry, entry_value

INDEX_VERSION = 1


@dataclass(frozen=True, slots=True)
class Link:
    """One slice record as gather and finalize need it, with the digest of its bytes."""

    digest: str
    agency_id: str
    run_id: str
    partition: int
    seq: int
    prev: str
    cursor: int
    read: int
    written: int
    rejected: int
    bytes_in: int
    bytes_out: int
    inputs_digest: str
    outputs: tuple[FileEntry, ...]
    rejects: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """The slices of one finished partition, in order of seq; the last one's digest is the head."""

    partition: int
    links: tuple[Link, ...]

    @property
    def head(self) -> str:
        """Return the chain head."""
        return self.links[-1].digest


class ChainWalk:
    """A walk from a head to the plan: `wanted` is the digest of the record to read next, None at the end."""

    def __init__(self, item: Item, head: Head) -> None:
        if item.plan_digest is None:
            raise chain_corrupt("The item names no plan digest")
        self._item, self._head, self._plan_digest = item, head, item.plan_digest
        self._backwards: list[Link] = []
        self.wanted: str | None = head.digest

    def take(self, link: Link) -> None:
        """Accept the wanted record, or fail.

        Raises:
            WorkFailed: `CHAIN_CORRUPT`, the record is not the one that stands here.
        """
        seq = self._head.last_seq - len(self._backwards)
        later = self._backwards[-1] if self._backwards else None
        for wrong, why in _objections(self._item, self._head.partition, seq, link, later):
            if wrong:
                raise chain_corrupt(f"partition {self._head.partition} seq {seq}: {why}")
        if seq == 1 and link.prev != self._plan_digest:
            raise chain_corrupt(f"partition {self._head.partition}: the chain does not begin at the plan")
        self._backwards.append(link)
        self.wanted = link.prev if seq > 1 else None

    def chain(self) -> Chain:
        """Return the walked chain in order of seq."""
        return Chain(self._head.partition, tuple(reversed(self._backwards)))


def _objections(item: Item, partition: int, seq: int, link: Link, later: Link | None) -> Sequence[tuple[bool, str]]:
    return (
        ((link.agency_id, link.run_id) != (item.agency_id, item.run_id), "the record is another run's"),
        (link.partition != partition, "the record is another partition's"),
        (link.seq != seq, "the record has another seq"),
        (link.read != link.written + link.rejected, "read is not written + rejected"),
        (sum(count for _, count in link.rejects) != link.rejected, "the reject counts do not add up"),
        (link.bytes_out != sum(entry.bytes for entry in link.outputs), "the output sizes do not add up"),
        (seq == 1 and link.cursor != link.read, "the first slice does not begin at the range's start"),
        (later is not None and link.cursor != later.cursor - later.read, "the slices do not meet"),
    )


def check_heads(heads: Sequence[Head], heads_max: int) -> None:
    """Check what a gather item names: at least one head, no partition twice, not more than one index may hold.

    Raises:
        WorkFailed: `CHAIN_CORRUPT`.
    """
    if not 0 < len({head.partition for head in heads}) == len(heads) <= heads_max:
        raise chain_corrupt(f"{len(heads)} heads in one gather item: none, repeated or too many")


def index_of(item: Item, chains: Sequence[Chain]) -> dict[str, Any]:
    """Return the index of some partitions as a JSON value: all that finalize needs of their records."""
    return {
        "v": INDEX_VERSION,
        "agency_id": item.agency_id,
        "run_id": item.run_id,
        "plan_digest": item.plan_digest,
        "number": item.number,
        "partitions": [_chain_value(chain) for chain in sorted(chains, key=lambda chain: chain.partition)],
    }


def chains_of(item: Item, number: int, index: dict[str, Any]) -> list[Chain]:
    """Read an index back.

    Raises:
        WorkFailed: `CHAIN_CORRUPT`, the index is another run's, another plan's or not of this form.
    """
    expected = (INDEX_VERSION, item.agency_id, item.run_id, item.plan_digest, number)
    found = tuple(index.get(name) for name in ("v", "agency_id", "run_id", "plan_digest", "number"))
    if found != expected:
        raise chain_corrupt(f"index {number} belongs to something else")
    try:
        return [_chain(item, value) for value in index["partitions"]]
    except (LookupError, TypeError, ValueError) as problem:
        raise chain_corrupt(f"index {number} cannot be read") from problem


def _chain_value(chain: Chain) -> dict[str, Any]:
    return {"partition": chain.partition, "slices": [_link_value(link) for link in chain.links]}


def _link_value(link: Link) -> dict[str, Any]:
    plain = ("digest", "prev", "seq", "cursor", "read", "written", "rejected", "bytes_in", "bytes_out", "inputs_digest")
    return {
        **{name: getattr(link, name) for name in plain},
        "outputs": [entry_value(entry) for entry in link.outputs],
        "rejects": [[code, count] for code, count in link.rejects],
    }


def _chain(item: Item, value: dict[str, Any]) -> Chain:
    partition = int(value["partition"])
    return Chain(partition, tuple(_link(item, partition, link) for link in value["slices"]))


def _link(item: Item, partition: int, value: dict[str, Any]) -> Link:
    outputs = tuple(FileEntry(**entry) for entry in value["outputs"])
    rejects = tuple((str(code), int(count)) for code, count in value["rejects"])
    rest = {name: field for name, field in value.items() if name not in {"outputs", "rejects"}}
    return Link(
        agency_id=item.agency_id, run_id=item.run_id, partition=partition, outputs=outputs, rejects=rejects, **rest
    )
