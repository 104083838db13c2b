"""I7, and I1 of the audit lane: each fact is sealed once, in a log without gaps, whose heads and receipts verify.

The trees are computed here again from the leaves, plainly as RFC 6962 §2.1 writes them down, not as the service keeps
them; receipts are put before the verifier that subscribers use.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

from flux_client.verifier import Trust, VerificationFailed, verify_receipt
from flux_common.contracts import catalogue
from flux_common.kernel.ids import SYSTEM_AGENCY
from flux_common.kernel.positions import Received, TopicPartition
from flux_devkit.oracle.heads import ReadHead, read_head, signature_fault, verifier_keys
from flux_devkit.oracle.report import Violation
from flux_devkit.oracle.rows import LeafRow
from flux_devkit.oracle.world import Event, World, group, header, json_of, repeated

SEALED_AS_FOUND = frozenset({"unreadable", "conflict"})
Trees = Mapping[str, Sequence[Sequence[bytes]]]
ENTRY_OF_FACT = ("agency_id", "ts", "type", "outcome", "code", "actor", "src", "subject_sha256")


def facts_are_sealed_once(world: World) -> Iterator[Violation]:
    """I7: each applied fact is one leaf, saying what the fact said; a repeated one was sealed elsewhere."""
    at = group(world.tables.leaves, lambda leaf: (leaf.kafka_partition, leaf.kafka_offset))
    sealed = {str(leaf.event_id) for leaf in world.tables.leaves}
    for book in (book for book in world.books if book.lane.topic == catalogue.AUDIT.name):
        for record, fate in book.judged():
            place, event_id = record.position, header(record, "ce_id")
            leaves = at.get((place.tp.kafka_partition, place.offset), [])
            if fate == "effect" and not leaves:
                yield Violation("I7", "a fact was taken and not sealed", (str(place), event_id))
            if fate == "duplicate" and event_id not in sealed:
                yield Violation("I7", "a fact was taken for a repetition and is not sealed", (str(place), event_id))
            for leaf in leaves:
                yield from _as_stated(record, leaf)


def _as_stated(record: Received, leaf: LeafRow) -> Iterator[Violation]:
    fact, entry, names = json_of(record.value) or {}, json_of(leaf.entry) or {}, (_name(leaf), str(record.position))
    if entry.get("type") in SEALED_AS_FOUND:
        if entry.get("subject_sha256") != sha256(record.value or b"").hexdigest():
            yield Violation("I7", "the entry of a fact that could not be read does not name its digest", names)
        return
    refs = {name: value for name, value in (entry.get("refs") or {}).items() if name != "fact_id"}
    if [entry.get(name) for name in ENTRY_OF_FACT] != [fact.get(name) for name in ENTRY_OF_FACT]:
        yield Violation("I7", "the entry says otherwise than the fact", names)
    if refs != fact.get("refs", {}) or (entry.get("refs") or {}).get("fact_id") != header(record, "ce_id"):
        yield Violation("I7", "the entry refers to something else than the fact", names)
    wanted = (fact.get("refs") or {}).get("event_id", header(record, "ce_id")) if fact.get("receipt") else None
    if fact.get("receipt") and str(leaf.receipt_for) != wanted:
        yield Violation("I7", "a receipt was asked for and is not remembered", names)


def leaves_come_from_facts(world: World) -> Iterator[Violation]:
    """I7: each leaf's position was booked as an effect, and makes no other leaf; its fact is sealed once."""
    for leaf in world.tables.leaves:
        place = TopicPartition(catalogue.AUDIT.name, leaf.kafka_partition).at(leaf.kafka_offset)
        book = world.book_of.get(place.tp)
        fate = book.fate(place.offset) if book is not None else None
        if fate != "effect":
            yield Violation(
                "I1", f"a leaf of a fact that was booked as {fate or 'nothing yet'}", (_name(leaf), str(place))
            )
    for key in ("position", "fact"):
        for _, leaves in repeated(world.tables.leaves, _identity(key)):
            yield Violation("I7", f"one {key} was sealed {len(leaves)} times", tuple(_name(leaf) for leaf in leaves))


def _identity(key: str) -> Any:
    if key == "fact":
        return lambda leaf: leaf.event_id
    return lambda leaf: (leaf.kafka_partition, leaf.kafka_offset)


def logs_are_dense(world: World) -> Iterator[Violation]:
    """I7: leaves are numbered from 0 without a gap, hashed as stored, and as many as the head says."""
    heads = {head.agency_id: head for head in world.tables.heads}
    for agency in sorted(heads.keys() | world.leaves_of.keys()):
        leaves = world.leaves_of.get(agency, [])
        if [leaf.seq for leaf in leaves] != list(range(len(leaves))):
            yield Violation("I7", "leaves are not numbered from 0 without a gap", (agency,))
        size = heads[agency].size if agency in heads else 0
        if size != len(leaves):
            yield Violation("I7", f"the head counts {size} leaves, there are {len(leaves)}", (agency,))
        for place, leaf in enumerate(leaves):
            entry = json_of(leaf.entry) or {}
            if leaf.leaf_hash != sha256(b"\x00" + leaf.entry).digest():
                yield Violation("I7", "a leaf is not the hash of its entry", (_name(leaf),))
            if entry.get("seq") != place:
                yield Violation("I7", f"an entry says seq {entry.get('seq')}", (_name(leaf),))


def trees_are_as_the_leaves_make_them(world: World) -> Iterator[Violation]:
    """I7: root, frontier and stored nodes are those of the leaves."""
    nodes = group(world.tables.nodes, lambda node: node.agency_id)
    for head in world.tables.heads:
        hashes = [leaf.leaf_hash for leaf in world.leaves_of.get(head.agency_id, [])]
        levels = full_subtrees(hashes)
        if head.root != tree_root(hashes):
            yield Violation("I7", "the root is not that of the leaves", (head.agency_id,))
        cover = [levels[level][(len(hashes) >> level) - 1] for level in _bits(len(hashes))]
        if list(head.frontier) != cover:
            yield Violation("I7", "the frontier is not that of the leaves", (head.agency_id,))
        stored = {(node.level, node.index): node.hash for node in nodes.get(head.agency_id, [])}
        expected = {(level, index): one for level, row in enumerate(levels) for index, one in enumerate(row)}
        if stored != expected:
            wrong = sorted(key for key in stored.keys() | expected.keys() if stored.get(key) != expected.get(key))
            yield Violation(
                "I7", f"{len(wrong)} stored nodes are missing or wrong, first {wrong[0]}", (head.agency_id,)
            )


def tree_root(hashes: Sequence[bytes]) -> bytes:
    """Return MTH of RFC 6962 §2.1 over leaf hashes."""
    if len(hashes) < 2:
        return hashes[0] if hashes else sha256(b"").digest()
    split = 1 << ((len(hashes) - 1).bit_length() - 1)
    return sha256(b"\x01" + tree_root(hashes[:split]) + tree_root(hashes[split:])).digest()


def full_subtrees(hashes: Sequence[bytes]) -> list[list[bytes]]:
    """Return the roots of all full subtrees: level by level, the leaves first."""
    levels = [list(hashes)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        pairs = zip(below[0::2], below[1::2], strict=False)
        levels.append([sha256(b"\x01" + left + right).digest() for left, right in pairs])
    return levels


def root_at(levels: Sequence[Sequence[bytes]], size: int) -> bytes:
    """Return the root of the first `size` leaves, from the full subtrees that cover them: the same, in O(log n)."""
    cover, start = list[bytes](), 0
    for level in _bits(size):
        cover.append(levels[level][start >> level])
        start += 1 << level
    root = cover.pop() if cover else sha256(b"").digest()
    for left in reversed(cover):
        root = sha256(b"\x01" + left + root).digest()
    return root


def _bits(size: int) -> list[int]:
    """Return the levels of the full subtrees that cover `size` leaves, the largest first."""
    return [level for level in reversed(range(size.bit_length())) if size >> level & 1]


def heads_are_true(world: World) -> Iterator[Violation]:
    """I7: each signed head, kept or published, is of its agency, of a size that was signed, and of our root there."""
    trees = {agency: full_subtrees([leaf.leaf_hash for leaf in leaves]) for agency, leaves in world.leaves_of.items()}
    for head in world.tables.heads:
        if head.signed_size:
            signed = read_head(head.signed_head or "")
            if signed is None or signed.size != head.signed_size:
                yield Violation("I7", "the kept head is not of the size that was signed", (head.agency_id,))
            else:
                yield from _head(world, trees, head.agency_id, signed, "the kept head")
    signed_sizes = {head.agency_id: head.signed_size for head in world.tables.heads}
    for event in world.on(catalogue.TREE_HEADS):
        if event.type == catalogue.TREE_HEAD_SIGNED.ce_type:
            signed, agency = read_head(event.get("tree_head") or ""), str(event.get("agency_id"))
            if signed is None or (signed.size, signed.root.hex()) != (event.get("size"), event.get("root")):
                yield Violation("I7", "a published head says otherwise than its note", (event.name,))
            elif signed.size > signed_sizes.get(agency, 0):
                yield Violation("I7", "a head was published that the database did not sign", (agency, event.name))
            else:
                yield from _head(world, trees, agency, signed, f"the head {event.name}")


def _head(world: World, trees: Trees, agency: str, signed: ReadHead, what: str) -> Iterator[Violation]:
    levels = trees.get(agency, [[]])
    if not signed.origin.endswith(f"/{agency}"):
        yield Violation("I7", f"{what} is of the log {signed.origin}", (agency,))
    if signed.size > len(levels[0]) or root_at(levels, signed.size) != signed.root:
        yield Violation("I7", f"{what} of size {signed.size} is not of the leaves that are sealed", (agency,))
    fault = signature_fault(signed, world.audit_keys)
    if fault is not None:
        yield Violation("I7", f"{what} of size {signed.size}: {fault}", (agency,))


def receipts_verify(world: World) -> Iterator[Violation]:
    """I7: each receipt verifies offline, holds our entry, and is the only one; whoever waited below a signed head has one."""
    told = group(world.on(catalogue.RECEIPTS), lambda event: (event.get("agency_id"), event.get("event_id")))
    leaves = {(leaf.agency_id, leaf.seq): leaf for leaf in world.tables.leaves}
    for receipt in world.on(catalogue.RECEIPTS):
        yield from _receipt(world, receipt, leaves.get((receipt.get("agency_id"), receipt.get("leaf_index"))))
    for head in world.tables.heads:
        if head.agency_id == SYSTEM_AGENCY or world.expired(catalogue.RECEIPTS.of(head.agency_id)):
            continue
        for leaf in world.leaves_of.get(head.agency_id, [])[: head.signed_size]:
            found = told.get((leaf.agency_id, str(leaf.receipt_for)), [])
            if leaf.receipt_for is not None and len(found) != 1:
                yield Violation("I7", f"{len(found)} receipts for an event", (_name(leaf), str(leaf.receipt_for)))


def _receipt(world: World, receipt: Event, leaf: LeafRow | None) -> Iterator[Violation]:
    names = (receipt.name, str(receipt.get("event_id")))
    if leaf is None or base64.b64encode(leaf.entry).decode() != receipt.get("entry"):
        yield Violation("I7", "a receipt of another entry than the one that is sealed", names)
    elif str(leaf.receipt_for) != receipt.get("event_id"):
        yield Violation("I7", "a receipt that the leaf does not ask for", names)
    signed = read_head(receipt.get("tree_head") or "")
    if signed is None:
        yield Violation("I7", "a receipt without a tree head", names)
    elif world.audit_keys:
        trust = Trust(verifier_keys(signed.origin, world.audit_keys), str(receipt.get("agency_id")))
        try:
            verify_receipt(receipt.body, trust)
        except VerificationFailed as refused:
            yield Violation("I7", f"a receipt does not verify: {refused}", names)


def terminal_events_and_decisions_are_attested(world: World) -> Iterator[Violation]:
    """I7: nothing ends unaudited: one fact attests each terminal event, with the digest of what was published."""
    ends = {catalogue.RUN_COMPLETED.ce_type, catalogue.RUN_FAILED.ce_type, catalogue.RUN_CANCELLED.ce_type}
    if world.expired(catalogue.AUDIT.name):
        return
    facts = group(world.on(catalogue.AUDIT), lambda fact: (fact.get("refs") or {}).get("event_id"))
    for spec in (catalogue.COMPLETIONS, catalogue.DECISIONS):
        for event in world.on(spec):
            found = facts.get(event.id, [])
            if event.type in ends and len(found) != 1:
                yield Violation("I7", f"{len(found)} facts attest a terminal event", (event.name, event.id))
            for fact in found:
                if fact.get("subject_sha256") != sha256(event.value).hexdigest():
                    yield Violation("I7", "a fact attests other bytes than the event's", (event.name, fact.name))


def _name(leaf: LeafRow) -> str:
    return f"{leaf.agency_id}#{leaf.seq}"


CHECKS = (
    facts_are_sealed_once,
    leaves_come_from_facts,
    logs_are_dense,
    trees_are_as_the_leaves_make_them,
    heads_are_true,
    receipts_verify,
    terminal_events_and_decisions_are_attested,
)
