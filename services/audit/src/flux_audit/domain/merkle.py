"""The Merkle tree of one agency's log, kept as a compact frontier, with proofs read from stored nodes.

Theory. The tree is the one of RFC 6962 §2.1 (RFC 9162 §2.1 defines the same): leaf `SHA-256(0x00 ‖ entry)`, node
`SHA-256(0x01 ‖ left ‖ right)`, empty tree `SHA-256("")`. A *full subtree* over 2^level leaves never changes once its
last leaf is there; it is stored under (level, index) and covers the leaves from `index · 2^level` on. Every root and
every proof hash, at every size, past or present, folds out of O(log n) full subtrees. So nothing is ever rebuilt, and
an older size needs no snapshot: its roots are made of nodes that are still stored.
Authority. The size and frontier of the head row, under its lock, say what the tree is; nodes are derived from them.
Failure. A node that is missing or a frontier that does not fit its size means that our own tables contradict
themselves: `InvariantBroken`. Asking for a leaf or a size that the tree does not have is the caller's mistake:
`ValueError`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import InvariantBroken

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of a leaf: `SHA-256(0x00 ‖ entry)`."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node: `SHA-256(0x01 ‖ left ‖ right)`."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True, order=True)
class NodeCoordinate:
    """The place of a full subtree: it covers the `2^level` leaves from `index · 2^level` on."""

    level: int
    index: int


@dataclass(frozen=True, slots=True)
class Node:
    """A full subtree and its root hash (32 bytes); level 0 is a leaf."""

    at: NodeCoordinate
    hash: bytes


@dataclass(frozen=True, slots=True)
class Frontier:
    """A tree of `size` leaves as the hashes of its full subtrees, the largest (leftmost) first.

    Raises `InvariantBroken` where the hashes do not fit the size: one for each bit of it, 32 bytes each.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.hashes) != self.size.bit_count():
            raise InvariantBroken(Code.INVARIANT_BROKEN, f"{len(self.hashes)} hashes do not make a tree of {self.size}")
        _check_hashes(self.hashes)

    @property
    def root(self) -> bytes:
        """Return the root of the tree: MTH of RFC 6962 §2.1."""
        return fold(self.hashes) if self.hashes else EMPTY_ROOT


@dataclass(frozen=True, slots=True)
class Appended:
    """What appending leaves made: the frontier after them, and every full subtree they completed, leaves included."""

    frontier: Frontier
    nodes: tuple[Node, ...]


def append(frontier: Frontier, leaf_hashes: Iterable[bytes]) -> Appended:
    """Return the tree after `leaf_hashes` (32 bytes each), in their order, and the nodes that came to be."""
    leaves = tuple(leaf_hashes)
    _check_hashes(leaves)
    hashes = list(frontier.hashes)
    nodes: list[Node] = []
    for number, leaf in enumerate(leaves, frontier.size):
        level, index, current = 0, number, leaf
        nodes.append(Node(NodeCoordinate(level, index), current))
        while index & 1:
            level, index, current = level + 1, index >> 1, node_hash(hashes.pop(), current)
            nodes.append(Node(NodeCoordinate(level, index), current))
        hashes.append(current)
    return Appended(Frontier(frontier.size + len(leaves), tuple(hashes)), tuple(nodes))


@dataclass(frozen=True, slots=True)
class Plan:
    """Which stored nodes make the hashes of a frontier or a proof: each hash folds from one group of nodes."""

    groups: tuple[tuple[NodeCoordinate, ...], ...]

    @property
    def coordinates(self) -> tuple[NodeCoordinate, ...]:
        """Return every node to fetch, each once."""
        return tuple(dict.fromkeys(at for group in self.groups for at in group))

    def fold(self, fetched: Mapping[NodeCoordinate, bytes]) -> tuple[bytes, ...]:
        """Return the hashes; `fetched` maps each of `coordinates` to its hash. One is missing: `InvariantBroken`."""
        missing = [at for at in self.coordinates if at not in fetched]
        if missing:
            raise InvariantBroken(Code.INVARIANT_BROKEN, f"{len(missing)} nodes are not stored, first {missing[0]}")
        _check_hashes(fetched[at] for at in self.coordinates)
        return tuple(fold([fetched[at] for at in group]) for group in self.groups)


def frontier_plan(size: int) -> Plan:
    """Return the plan of the frontier of the first `size` leaves; `frontier_of` makes the tree of it."""
    _check(size >= 0, "a tree cannot be smaller than empty")
    return Plan(tuple((at,) for at in _cover(0, size)))


def frontier_of(size: int, fetched: Mapping[NodeCoordinate, bytes]) -> Frontier:
    """Return the tree of the first `size` leaves from the nodes of `frontier_plan(size)`."""
    return Frontier(size, frontier_plan(size).fold(fetched))


def inclusion_plan(index: int, size: int) -> Plan:
    """Return the plan of PATH(index, D[size]): leaf `index` is in the tree of `size` leaves (RFC 6962 §2.1.1)."""
    _check(0 <= index < size, "there is no such leaf in a tree of this size")
    groups: list[tuple[NodeCoordinate, ...]] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            groups.append(_cover(middle, high))
            high = middle
        else:
            groups.append(_cover(low, middle))
            low = middle
    return Plan(tuple(reversed(groups)))


def consistency_plan(older: int, newer: int) -> Plan:
    """Return the plan of PROOF(older, D[newer]): the older tree is a prefix of the newer (RFC 6962 §2.1.2).

    Nothing can be proven about size 0, since every tree extends it; that is refused.
    """
    _check(0 < older <= newer, "a consistency proof leads from a tree that is not empty to one that is not smaller")
    groups: list[tuple[NodeCoordinate, ...]] = []
    low, high = 0, newer
    while older != high:
        middle = low + _split(high - low)
        if older <= middle:
            groups.append(_cover(middle, high))
            high = middle
        else:
            groups.append(_cover(low, middle))
            low = middle
    if low:  # else the older tree is itself a node on the path, and whoever checks the proof holds its root
        groups.append(_cover(low, high))
    return Plan(tuple(reversed(groups)))


def fold(hashes: Sequence[bytes]) -> bytes:
    """Return the root over adjoining subtrees, the largest first: the ragged right edge of RFC 6962's tree."""
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def _cover(low: int, high: int) -> tuple[NodeCoordinate, ...]:
    """Return the full subtrees over the leaves `[low, high)`, largest first; `low` is where one of them may start."""
    coordinates = []
    while low < high:
        level = (high - low).bit_length() - 1
        coordinates.append(NodeCoordinate(level, low >> level))
        low += 1 << level
    return tuple(coordinates)


def _split(width: int) -> int:
    """Return the largest power of two smaller than `width` (> 1)."""
    return 1 << ((width - 1).bit_length() - 1)


def _check_hashes(hashes: Iterable[bytes]) -> None:
    if any(len(one) != HASH_BYTES for one in hashes):
        raise InvariantBroken(Code.INVARIANT_BROKEN, f"a tree hash is not {HASH_BYTES} bytes")


def _check(holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(rule)
