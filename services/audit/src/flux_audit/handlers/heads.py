"""Signing: the trees that are due get a head, and what the head is the first to cover gets its receipts.

Everything happens inside the transaction that holds the lane and the head rows: the head row first, then into the outbox
the head and after it its receipts, so that no receipt is ever seen before the head that it rests on, and none is
forgotten: they are read from the last signed size on. Proofs are read from stored nodes, all of them by one query.
A refused head (`FORK`, `DATABASE_BEHIND_KAFKA`, `INVARIANT_BROKEN`) is an alarm for its agency alone; its facts are
sealed on, and other agencies are signed.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import structlog

from flux_audit.domain.merkle import NodeCoordinate, inclusion_plan
from flux_audit.domain.signing import Candidate, Tree, candidate
from flux_audit.domain.tree_head import log_origin
from flux_audit.handlers.unsigned import Unsigned
from flux_audit.ports import LogStore, SignedHead, Signer, WantedLeaf
from flux_common.contracts import catalogue
from flux_common.contracts.envelope import Outgoing
from flux_common.contracts.facts import AuditSealed, TreeHeadSigned
from flux_common.contracts.outgoing import Emitter
from flux_common.kernel.codes import Code
from flux_common.kernel.ids import derived_id
from flux_common.observability import metrics

log = structlog.get_logger(__name__)

EMITTER = Emitter("audit")


@dataclass(slots=True)
class Publication:
    """What a transaction signs: the events for the outbox, in order, and what to note once it has committed.

    `trees` are the trees that were looked at, as they stand after it; `signed` those of them with a new head.
    """

    events: list[Outgoing] = field(default_factory=list)
    trees: list[Tree] = field(default_factory=list)
    signed: list[Tree] = field(default_factory=list)
    refused: dict[str, Code] = field(default_factory=dict)


class HeadPublisher:
    """Signs heads and writes receipts; `prefix` and the agency make a log's origin."""

    def __init__(self, unsigned: Unsigned, signer: Signer, prefix: str) -> None:
        self._unsigned = unsigned
        self._signer = signer
        self._prefix = prefix

    async def publish(self, store: LogStore, trees: Iterable[Tree], now: datetime) -> Publication:
        """Sign those of the locked `trees` that are due. Nothing is noted before `confirm`."""
        looked = sorted(trees, key=lambda tree: tree.agency_id)
        signed, refused = await self._judge(store, [tree for tree in looked if self._unsigned.is_due(tree)])
        await store.publish(signed)
        after = {one.tree.agency_id: replace(one.tree, signed_size=one.head.size) for one in signed}
        return Publication(
            events=await self._events(store, signed, now),
            trees=[after.get(tree.agency_id, tree) for tree in looked],
            signed=list(after.values()),
            refused=refused,
        )

    def confirm(self, publication: Publication) -> None:
        """Note what was signed and refused; call it after the commit."""
        self._unsigned.signed(publication.signed)
        self._unsigned.refused(publication.refused)
        metrics.tree_heads_signed.inc(len(publication.signed))
        for agency, code in publication.refused.items():
            metrics.signing_refused.labels(code).inc()
            log.error("tree head refused", agency_id=agency, code=code, error=code.meaning)

    async def _judge(self, store: LogStore, due: Sequence[Tree]) -> tuple[list[SignedHead], dict[str, Code]]:
        candidates = [self._candidate(tree) for tree in due]
        nodes = await store.nodes({one.tree.agency_id: one.coordinates for one in candidates})
        signed, refused = list[SignedHead](), dict[str, Code]()
        for one in candidates:
            verdict = one.judge(nodes.get(one.tree.agency_id, {}))
            if isinstance(verdict, Code):
                refused[one.tree.agency_id] = verdict
            else:
                signed.append(SignedHead(one.tree, verdict, self._signer.sign(verdict)))
        return signed, refused

    def _candidate(self, tree: Tree) -> Candidate:
        remembered = self._unsigned.memory.last(tree.agency_id)
        origin = log_origin(self._prefix, tree.agency_id)
        return candidate(tree, origin, remembered, self._unsigned.cadence.leaves_max)

    async def _events(self, store: LogStore, signed: Sequence[SignedHead], now: datetime) -> list[Outgoing]:
        receipts = await self._receipts(store, signed, now)
        return [event for one in signed for event in [_head_event(one, now), *receipts[one.tree.agency_id]]]

    async def _receipts(
        self, store: LogStore, signed: Sequence[SignedHead], now: datetime
    ) -> dict[str, list[Outgoing]]:
        heads = {one.tree.agency_id: one for one in signed}
        plans = [
            (leaf, inclusion_plan(leaf.seq, heads[leaf.agency_id].head.size)) for leaf in await store.wanted(signed)
        ]
        wanted = defaultdict[str, set[NodeCoordinate]](set)
        for leaf, plan in plans:
            wanted[leaf.agency_id].update(plan.coordinates)
        nodes = await store.nodes(wanted)
        receipts = defaultdict[str, list[Outgoing]](list)
        for leaf, plan in plans:
            proof = plan.fold(nodes.get(leaf.agency_id, {}))
            receipts[leaf.agency_id].append(_receipt_event(heads[leaf.agency_id], leaf, proof, now))
        return receipts


def _head_event(signed: SignedHead, now: datetime) -> Outgoing:
    agency, head = signed.tree.agency_id, signed.head
    body = TreeHeadSigned(agency_id=agency, size=head.size, root=head.root.hex(), tree_head=signed.note)
    return EMITTER.event(
        catalogue.TREE_HEADS,
        catalogue.TREE_HEAD_SIGNED,
        body,
        agency_id=agency,
        key=agency,
        event_id=derived_id(["tree-head", agency, head.size]),
        at=now,
    )


def _receipt_event(signed: SignedHead, leaf: WantedLeaf, proof: Sequence[bytes], now: datetime) -> Outgoing:
    event_id = str(leaf.event_id)
    body = AuditSealed(
        agency_id=leaf.agency_id,
        event_id=event_id,
        entry=_text(leaf.entry),
        leaf_index=leaf.seq,
        tree_size=signed.head.size,
        inclusion_proof=[_text(one) for one in proof],
        tree_head=signed.note,
    )
    return EMITTER.event(
        catalogue.RECEIPTS,
        catalogue.AUDIT_SEALED,
        body,
        agency_id=leaf.agency_id,
        key=event_id,
        event_id=derived_id(["receipt", leaf.agency_id, leaf.seq]),
        at=now,
        subject=event_id,
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
