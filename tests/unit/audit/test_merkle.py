"""The tree kept as a frontier and stored nodes is RFC 6962's tree, at every size, with every proof."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_audit.domain.merkle import (
    EMPTY_ROOT,
    Appended,
    Frontier,
    Node,
    NodeCoordinate,
    append,
    consistency_plan,
    frontier_of,
    frontier_plan,
    inclusion_plan,
    leaf_hash,
    node_hash,
)
from flux_common.kernel.errors import InvariantBroken

SIZE_MAX = 130
ENTRIES = [b"entry %d" % number for number in range(SIZE_MAX)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
RFC_ENTRIES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
RFC_ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


# The oracle: RFC 6962 §2.1 as it is written, sharing nothing with the code under test but SHA-256.


@cache
def mth(low: int, high: int) -> bytes:
    if high - low == 0:
        return hashlib.sha256(b"").digest()
    if high - low == 1:
        return hashlib.sha256(b"\x00" + ENTRIES[low]).digest()
    middle = low + split(high - low)
    return hashlib.sha256(b"\x01" + mth(low, middle) + mth(middle, high)).digest()


def split(width: int) -> int:
    power = 1
    while power * 2 < width:
        power *= 2
    return power


def path(leaf: int, low: int, high: int) -> list[bytes]:
    if high - low == 1:
        return []
    middle = low + split(high - low)
    if leaf < middle:
        return [*path(leaf, low, middle), mth(middle, high)]
    return [*path(leaf, middle, high), mth(low, middle)]


def proof(older: int, low: int, high: int, whole: bool) -> list[bytes]:
    if older == high:
        return [] if whole else [mth(low, high)]
    middle = low + split(high - low)
    if older <= middle:
        return [*proof(older, low, middle, whole), mth(middle, high)]
    return [*proof(older, middle, high, False), mth(low, middle)]


def grown(batches: Iterable[Sequence[bytes]]) -> tuple[Frontier, dict[NodeCoordinate, bytes]]:
    frontier, stored = Frontier(), dict[NodeCoordinate, bytes]()
    for batch in batches:
        appended = append(frontier, batch)
        frontier = appended.frontier
        stored |= {node.at: node.hash for node in appended.nodes}
    return frontier, stored


STORED = grown([LEAVES])[1]


@pytest.mark.parametrize("size", RFC_ROOTS)
def test_the_vectors_of_rfc_6962_hold(size: int) -> None:
    """The published roots over the published leaves come out, the empty tree's included."""
    leaves = [leaf_hash(bytes.fromhex(entry)) for entry in RFC_ENTRIES[:size]]

    assert append(Frontier(), leaves).frontier.root.hex() == RFC_ROOTS[size]


def test_hashes_are_domain_separated() -> None:
    """A leaf is hashed after 0x00 and a node after 0x01, so neither can pass for the other."""
    left, right = leaf_hash(b"left"), leaf_hash(b"right")

    assert node_hash(left, right) != leaf_hash(left + right)
    assert hashlib.sha256(b"").digest() == EMPTY_ROOT


def test_every_root_at_every_size() -> None:
    """For 0 to 130 leaves, appending one by one makes the root that the recursive definition makes."""
    frontier, roots = Frontier(), [Frontier().root]
    for leaf in LEAVES:
        frontier = append(frontier, [leaf]).frontier
        roots.append(frontier.root)

    assert roots == [mth(0, size) for size in range(SIZE_MAX + 1)]


def test_older_roots_come_from_stored_nodes() -> None:
    """The root at every earlier size folds from nodes that a later tree still has."""
    roots = [frontier_of(size, STORED).root for size in range(SIZE_MAX + 1)]

    assert roots == [mth(0, size) for size in range(SIZE_MAX + 1)]


def test_every_inclusion_proof() -> None:
    """For every leaf of every size up to 130, the folded nodes are PATH(m, D[n])."""
    for size in range(1, SIZE_MAX + 1):
        for index in range(size):
            assert list(inclusion_plan(index, size).fold(STORED)) == path(index, 0, size)


def test_every_consistency_proof() -> None:
    """For every pair of sizes up to 130, the folded nodes are PROOF(m, D[n])."""
    for newer in range(1, SIZE_MAX + 1):
        for older in range(1, newer + 1):
            assert list(consistency_plan(older, newer).fold(STORED)) == proof(older, 0, newer, True)


@given(sizes=st.lists(st.integers(0, 40), max_size=6))
def test_batches_do_not_matter(sizes: list[int]) -> None:
    """However leaves are cut into batches, the same frontier and the same nodes come out, no node twice."""
    leaves = [leaf_hash(b"%d" % number) for number in range(sum(sizes))]
    batches, low = [], 0
    for size in sizes:
        batches.append(leaves[low : low + size])
        low += size
    whole = append(Frontier(), leaves)

    assert grown(batches) == (whole.frontier, {node.at: node.hash for node in whole.nodes})
    assert len({node.at for node in whole.nodes}) == len(whole.nodes)


@given(older=st.integers(0, SIZE_MAX), more=st.integers(0, SIZE_MAX))
def test_new_nodes_are_exactly_the_completed_subtrees(older: int, more: int) -> None:
    """An append yields each full subtree whose last leaf is among the new ones, and no other."""
    newer = min(older + more, SIZE_MAX)
    appended = append(frontier_of(older, STORED), LEAVES[older:newer])
    completed = {at for at in STORED if older < (at.index + 1) << at.level <= newer}

    assert {node.at for node in appended.nodes} == completed
    assert all(STORED[node.at] == node.hash for node in appended.nodes)


@given(size=st.integers(1, 2**53), data=st.data())
def test_proofs_cost_logarithmically_many_nodes(size: int, data: st.DataObject) -> None:
    """A plan names at most 2·log2(n) + 2 nodes, each a full subtree of the tree, none twice, none out of reach."""
    index = data.draw(st.integers(0, size - 1))
    older = data.draw(st.integers(1, size))
    for plan in (frontier_plan(size), inclusion_plan(index, size), consistency_plan(older, size)):
        assert len(plan.coordinates) <= 2 * size.bit_length() + 2
        assert len(set(plan.coordinates)) == sum(len(group) for group in plan.groups)
        assert all((at.index + 1) << at.level <= size for at in plan.coordinates)


def test_appending_nothing_changes_nothing() -> None:
    """An empty batch leaves the frontier as it was and makes no node."""
    frontier = frontier_of(5, STORED)

    assert append(frontier, []) == Appended(frontier, ())


def test_a_single_leaf_is_its_own_root() -> None:
    """The first leaf is a node of level 0 and the root."""
    appended = append(Frontier(), LEAVES[:1])

    assert appended == Appended(Frontier(1, (LEAVES[0],)), (Node(NodeCoordinate(0, 0), LEAVES[0]),))
    assert appended.frontier.root == LEAVES[0]


@pytest.mark.parametrize(
    ("size", "hashes"), [(1, ()), (0, (LEAVES[0],)), (3, (LEAVES[0],)), (-1, ()), (1, (b"short",))]
)
def test_a_frontier_that_does_not_fit_is_refused(size: int, hashes: tuple[bytes, ...]) -> None:
    """A frontier holds one 32-byte hash for each bit of its size; anything else is our own contradiction."""
    with pytest.raises(InvariantBroken):
        Frontier(size, hashes)


def test_a_leaf_hash_of_another_length_is_refused() -> None:
    """Nothing but 32-byte hashes enters the tree."""
    with pytest.raises(InvariantBroken):
        append(Frontier(), [b"short"])


def test_a_missing_or_cut_node_is_refused() -> None:
    """A proof is never made from fewer or other nodes than it needs."""
    plan = inclusion_plan(3, 7)
    at = plan.coordinates[0]
    for broken in ({key: STORED[key] for key in plan.coordinates[1:]}, {**STORED, at: STORED[at][:31]}):
        with pytest.raises(InvariantBroken):
            plan.fold(broken)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 5), (6, 5)])
def test_no_inclusion_plan_for_a_leaf_that_is_not_there(index: int, size: int) -> None:
    """Asking for a leaf outside the tree is the caller's mistake."""
    with pytest.raises(ValueError, match="no such leaf"):
        inclusion_plan(index, size)


@pytest.mark.parametrize(("older", "newer"), [(0, 0), (0, 5), (6, 5), (-1, 5)])
def test_no_consistency_plan_from_nothing_or_backwards(older: int, newer: int) -> None:
    """Size 0 proves nothing and a tree never shrinks: both are refused."""
    with pytest.raises(ValueError, match="consistency proof"):
        consistency_plan(older, newer)


def test_no_frontier_below_empty() -> None:
    """A negative size is the caller's mistake."""
    with pytest.raises(ValueError, match="smaller than empty"):
        frontier_plan(-1)
