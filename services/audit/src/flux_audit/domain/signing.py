"""Which heads are due, and whether they may be signed: the decision of whoever holds the lock of the head rows.

Theory. A head is due when something is new and either the last one is a second old or a thousand leaves are not under
it. One head covers at most `leaves_max` more leaves than the one before, so that a long silence of the signer ends in
several transactions of bounded size: any size between the last signed and the present one is a true head, since its
root folds out of stored nodes.
Authority. The signer's memory (a Kafka topic) for what was published, the head row for what is signed, the stored nodes
for the root. All three must agree, or nothing is signed for that agency: the head row's root and the root of the nodes
(`INVARIANT_BROKEN`), the remembered size and root and ours (`DATABASE_BEHIND_KAFKA`, `FORK`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flux_audit.domain.merkle import Frontier, NodeCoordinate, frontier_of, frontier_plan
from flux_audit.domain.tree_head import TreeHead, judge_memory
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import InvariantBroken


@dataclass(frozen=True, slots=True)
class Tree:
    """An agency's log as its head row states it: the tree now, and the size that was signed last."""

    agency_id: str
    frontier: Frontier = Frontier()  # noqa: RUF009 - frozen, and the empty tree is always the same
    signed_size: int = 0

    @property
    def size(self) -> int:
        """Return the number of leaves."""
        return self.frontier.size

    @property
    def unsigned(self) -> int:
        """Return the number of leaves that no signed head covers."""
        return self.size - self.signed_size


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often heads are signed. `refused_s`: the pause before an agency whose head was refused is judged again."""

    every_s: float = 1.0
    leaves: int = 1_000
    leaves_max: int = 5_000
    refused_s: float = 30.0

    def is_due(self, tree: Tree, since_signed_s: float | None) -> bool:
        """Tell whether a head is due; `since_signed_s` is the age of the last one, None where it is not known."""
        if tree.unsigned == 0:
            return False
        return since_signed_s is None or since_signed_s >= self.every_s or tree.unsigned >= self.leaves


@dataclass(frozen=True, slots=True)
class Candidate:
    """A head that would be signed: over the first `size` leaves of `tree`, if it extends the `remembered` head."""

    tree: Tree
    origin: str
    size: int
    remembered: TreeHead | None

    @property
    def coordinates(self) -> set[NodeCoordinate]:
        """Return the stored nodes that `judge` needs."""
        return {*frontier_plan(self.size).coordinates, *frontier_plan(self._memory_size).coordinates}

    def judge(self, nodes: Mapping[NodeCoordinate, bytes]) -> TreeHead | Code:
        """Return the head to sign, or why nothing may be signed. `nodes` holds those of `coordinates` that are stored."""
        try:
            own_root = frontier_of(self._memory_size, nodes).root if self._reaches_memory else None
            refusal = judge_memory(self.remembered, self.tree.signed_size, own_root)
            root = frontier_of(self.size, nodes).root
        except InvariantBroken:
            return Code.INVARIANT_BROKEN
        if refusal is not None:
            return refusal
        if self.size == self.tree.size and root != self.tree.frontier.root:
            return Code.INVARIANT_BROKEN
        return TreeHead(self.origin, self.size, root)

    @property
    def _reaches_memory(self) -> bool:
        return self.remembered is None or self.remembered.size <= self.tree.size

    @property
    def _memory_size(self) -> int:
        return self.remembered.size if self.remembered is not None and self._reaches_memory else 0


def candidate(tree: Tree, origin: str, remembered: TreeHead | None, leaves_max: int) -> Candidate:
    """Return the next head of `tree`: over everything, or over `leaves_max` more leaves than the last signed one."""
    return Candidate(tree, origin, min(tree.size, tree.signed_size + leaves_max), remembered)


def is_behind(tree: Tree, remembered: TreeHead | None) -> bool:
    """Tell whether more was published than the database knows to be signed: to be judged even if nothing is new."""
    return remembered is not None and remembered.size > tree.signed_size
