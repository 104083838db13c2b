"""What audit's handlers need from outside, in the domain's words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from flux_audit.domain.merkle import NodeCoordinate
from flux_audit.domain.sealing import Sealed, SealedLeaf
from flux_audit.domain.signing import Tree
from flux_audit.domain.tree_head import TreeHead
from flux_common.kernel.positions import Lane

FactKey = tuple[str, UUID]  # agency, id of the fact
Nodes = Mapping[NodeCoordinate, bytes]


@dataclass(frozen=True, slots=True)
class Growth:
    """A tree as it was locked, and the leaves that a batch adds to it."""

    tree: Tree
    sealed: Sealed

    @property
    def grown(self) -> Tree:
        """Return the tree after the batch."""
        return Tree(self.tree.agency_id, self.sealed.appended.frontier, self.tree.signed_size)


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A head that was signed, its note, and the tree as it was locked."""

    tree: Tree
    head: TreeHead
    note: str


@dataclass(frozen=True, slots=True)
class WantedLeaf:
    """A leaf for whose receipt somebody waits: the event's id and the entry's bytes."""

    agency_id: str
    seq: int
    event_id: UUID
    entry: bytes


@dataclass(frozen=True, slots=True)
class HeldLane:
    """A lane under lock: the transaction's time, how far the lane is, its watermark (None: it has none yet)."""

    now: datetime
    next_offset: int
    watermark: datetime | None


class LogStore(Protocol):
    """The logs inside one transaction. Locks are taken in the global order: lane, then tree heads, sorted."""

    async def hold(self, lane: Lane) -> HeldLane:
        """Lock a lane's row under our epoch, so that no Take and no Advance of it commits meanwhile. Raises Fenced."""
        ...

    async def open(self, agencies: Collection[str]) -> None:
        """Make the head rows that are missing: empty trees."""
        ...

    async def lock(self, agencies: Collection[str]) -> dict[str, Tree]:
        """Lock and return the trees that have a head row."""
        ...

    async def find(self, facts: Collection[FactKey]) -> dict[FactKey, SealedLeaf]:
        """Return the leaves of those facts that are sealed already."""
        ...

    async def append(self, growths: Sequence[Growth]) -> None:
        """Write leaves, nodes and head rows. Raises InvariantBroken where a head row is not as it was locked."""
        ...

    async def nodes(self, wanted: Mapping[str, Collection[NodeCoordinate]]) -> dict[str, Nodes]:
        """Return the stored ones of the wanted nodes, by agency."""
        ...

    async def publish(self, heads: Sequence[SignedHead]) -> None:
        """Write what is signed now. Raises InvariantBroken where a head row is not as it was locked."""
        ...

    async def wanted(self, heads: Sequence[SignedHead]) -> list[WantedLeaf]:
        """Return the leaves with a receipt that these heads are the first to cover, in order."""
        ...


class HeadMemory(Protocol):
    """The signer's memory: the last head that was published of each log. It lives outside the database."""

    async def refresh(self) -> None:
        """Read what was published up to now. Raises Unavailable; what is known stays."""
        ...

    def last(self, agency_id: str) -> TreeHead | None:
        """Return the last published head; None if there never was one."""
        ...

    def agencies(self) -> Collection[str]:
        """Return whose heads were ever published."""
        ...


class Signer(Protocol):
    """Holds the signing key."""

    def sign(self, head: TreeHead) -> str:
        """Return the head as a signed note."""
        ...


# What opens a store on a transaction's connection.
LogStores = Callable[[Any], LogStore]
