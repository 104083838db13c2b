"""When a head is due, and that none is signed where memory, head row and stored nodes do not agree."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_audit.domain.merkle import EMPTY_ROOT, Frontier, NodeCoordinate, append
from flux_audit.domain.signing import Cadence, Tree, candidate, is_behind
from flux_audit.domain.tree_head import TreeHead
from flux_common.kernel.codes import Code

ORIGIN = "flux.example/audit/nasa"
Stored = dict[NodeCoordinate, bytes]


def grown(size: int, salt: str = "") -> tuple[Frontier, Stored]:
    """Return a tree of `size` leaves and everything that is stored of it."""
    made = append(Frontier(), [hashlib.sha256(f"{salt}{n}".encode()).digest() for n in range(size)])
    return made.frontier, {node.at: node.hash for node in made.nodes}


def head(size: int, salt: str = "") -> TreeHead:
    return TreeHead(ORIGIN, size, grown(size, salt)[0].root)


@pytest.mark.parametrize(
    ("size", "signed", "since", "due"),
    [
        (0, 0, None, False),
        (1, 0, None, True),
        (5, 5, 100.0, False),
        (6, 5, 0.9, False),
        (6, 5, 1.0, True),
        (1004, 5, 0.0, False),
        (1005, 5, 0.0, True),
    ],
)
def test_a_head_is_due_by_time_or_by_leaves(size: int, signed: int, since: float | None, due: bool) -> None:
    """Nothing new: never. Something new: after a second, after a thousand leaves, or where no head is known."""
    assert Cadence(every_s=1.0, leaves=1000).is_due(Tree("nasa", grown(size)[0], signed), since) is due


@given(size=st.integers(0, 40), signed=st.integers(0, 40), memory=st.integers(0, 40), most=st.integers(1, 10))
def test_a_head_extends_what_was_published_or_is_refused(size: int, signed: int, memory: int, most: int) -> None:
    """Signed is the true root over a bounded number of new leaves; refused is whatever knows less than the memory."""
    signed = min(signed, size)
    frontier, stored = grown(size)
    one = candidate(Tree("nasa", frontier, signed), ORIGIN, head(memory), most)
    verdict = one.judge({at: stored[at] for at in one.coordinates})

    assert verdict == (Code.DATABASE_BEHIND_KAFKA if memory > signed else head(min(size, signed + most)))
    assert len(one.coordinates) <= 2 * 6


def test_another_past_is_a_fork() -> None:
    """At the remembered size our root is another one."""
    frontier, stored = grown(9)

    assert candidate(Tree("nasa", frontier, 7), ORIGIN, head(5, "x"), 100).judge(stored) is Code.FORK
    assert candidate(Tree("nasa", frontier, 7), ORIGIN, head(5), 100).judge(stored) == head(9)
    assert candidate(Tree("nasa", frontier, 7), ORIGIN, None, 100).judge(stored) == head(9)


def test_tables_that_contradict_themselves_are_not_signed() -> None:
    """A node that is missing, or a head row whose root is not that of its nodes."""
    frontier, _ = grown(9)
    tree = Tree("nasa", frontier, 7)

    assert candidate(tree, ORIGIN, None, 100).judge({}) is Code.INVARIANT_BROKEN
    assert candidate(tree, ORIGIN, None, 100).judge(grown(9, "x")[1]) is Code.INVARIANT_BROKEN
    assert candidate(tree, ORIGIN, head(8), 100).judge({NodeCoordinate(0, 8): bytes(32)}) is Code.INVARIANT_BROKEN


def test_what_is_behind_is_judged_although_nothing_is_new() -> None:
    """A database that was restored to before the published head is found without a new fact."""
    tree = Tree("nasa", grown(5)[0], 5)

    assert [is_behind(tree, one) for one in (None, head(5), head(6))] == [False, False, True]
    assert candidate(tree, ORIGIN, head(6), 100).judge(grown(5)[1]) is Code.DATABASE_BEHIND_KAFKA
    assert Tree("nasa").frontier.root == EMPTY_ROOT
