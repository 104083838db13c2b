"""Which leaf each arriving fact becomes: the decision of a lane's batch for one agency.

Theory. Facts are sealed in the order of their offsets, at the leaves `size … size + n - 1`, each fact once: its id is
unique in the agency's log. A fact seen again with the same bytes is a *duplicate* and makes nothing. Nothing else is
ever lost: what cannot be read is sealed as type `unreadable`, what carries a known id with other bytes as type
`conflict`, each under an id derived from its position, and both are alerted.
A fact that is in the log already is told by its leaf: encoded again as that leaf, the same fact makes the same hash
(`known_facts`). So the log needs no second digest, and what counts as "the same" is exactly what was sealed.
Authority. The frontier and the ids already sealed, both read under the lock of the agency's head row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from flux_audit.domain.entry import EntryRefused, Fact, entry_bytes
from flux_audit.domain.merkle import Appended, Frontier, append, leaf_hash
from flux_common.kernel.ids import SYSTEM_AGENCY, decided_id
from flux_common.kernel.positions import Position

UNREADABLE: Final = "unreadable"
CONFLICT: Final = "conflict"


class Fate(StrEnum):
    """What became of an arrival; *sealed*, *unreadable* and *conflict* each made a leaf."""

    SEALED = "sealed"
    UNREADABLE = "unreadable"
    CONFLICT = "conflict"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A record of the facts topic: where it stood, when the broker had it (RFC 3339), the SHA-256 of its value in hex.

    `topic_id` tells a topic from one that was created later under its name. `fact` is None where the record could not
    be read.
    """

    topic_id: str
    position: Position
    ts: str
    sha256: str
    fact: Fact | None


@dataclass(frozen=True, slots=True)
class Leaf:
    """One leaf to write: `seq` is its index, `fact_sha256` the digest by which a repeated fact is recognised."""

    seq: int
    fact: Fact
    fact_sha256: str
    entry: bytes
    hash: bytes
    position: Position

    @property
    def receipt_for(self) -> str | None:
        """Return the id of the event whose receipt somebody waits for; nobody waits for the reserved agency's."""
        return self.fact.event_id if self.fact.receipt and self.fact.agency_id != SYSTEM_AGENCY else None


@dataclass(frozen=True, slots=True)
class SealedLeaf:
    """A leaf that is in the log: its index, and its hash (32 bytes)."""

    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """The whole decision: leaves to insert, the tree after them, and the fate of each arrival by its position."""

    leaves: tuple[Leaf, ...]
    appended: Appended
    fates: Mapping[Position, Fate]


def seal(agency_id: str, frontier: Frontier, arrivals: Iterable[Arrival], known: Mapping[str, str]) -> Sealed:
    """Decide a batch of one agency. `known` maps the arrivals' ids that are sealed already to their SHA-256."""
    seen, leaves, fates = dict(known), list[Leaf](), dict[Position, Fate]()
    for arrival in sorted(arrivals, key=lambda one: one.position.offset):  # a batch is of one lane
        fate, leaf = _judge(agency_id, frontier.size + len(leaves), arrival, seen)
        fates[arrival.position] = fate
        if leaf is not None:
            leaves.append(leaf)
            seen[leaf.fact.fact_id] = leaf.fact_sha256
    return Sealed(tuple(leaves), append(frontier, [leaf.hash for leaf in leaves]), fates)


def known_facts(arrivals: Iterable[Arrival], sealed: Mapping[str, SealedLeaf]) -> dict[str, str]:
    """Return, for each arriving id that is `sealed`, the SHA-256 of the arrival that is that leaf's fact.

    Where no arrival of the id is, the SHA-256 is empty: every one of them is a conflict.
    """
    known = dict.fromkeys(sealed, "")
    for arrival in arrivals:
        fact = arrival.fact
        if fact is not None and fact.fact_id in sealed and _is_leaf(fact, sealed[fact.fact_id]):
            known[fact.fact_id] = arrival.sha256
    return known


def _is_leaf(fact: Fact, leaf: SealedLeaf) -> bool:
    try:
        return leaf_hash(entry_bytes(fact, leaf.seq)) == leaf.hash
    except EntryRefused:
        return False


def _judge(agency_id: str, seq: int, arrival: Arrival, seen: Mapping[str, str]) -> tuple[Fate, Leaf | None]:
    fact = arrival.fact
    if fact is None or fact.agency_id != agency_id:
        return Fate.UNREADABLE, _leaf(_about(UNREADABLE, agency_id, arrival), seq, arrival)
    if fact.fact_id in seen:
        if seen[fact.fact_id] == arrival.sha256:
            return Fate.DUPLICATE, None
        about = _about(CONFLICT, agency_id, arrival)
        return Fate.CONFLICT, _leaf(replace(about, refs={"conflicts_with": fact.fact_id}), seq, arrival)
    try:
        return Fate.SEALED, _leaf(fact, seq, arrival)
    except EntryRefused:
        return Fate.UNREADABLE, _leaf(_about(UNREADABLE, agency_id, arrival), seq, arrival)


def _leaf(fact: Fact, seq: int, arrival: Arrival) -> Leaf:
    entry = entry_bytes(fact, seq)
    return Leaf(seq, fact, arrival.sha256, entry, leaf_hash(entry), arrival.position)


def _about(kind: str, agency_id: str, arrival: Arrival) -> Fact:
    """Return the fact that audit itself states about a record that it cannot seal as it came."""
    at = arrival.position
    src: dict[str, Any] = {
        "service": "audit",
        "topic": at.tp.topic,
        "kafka_partition": at.tp.kafka_partition,
        "offset": at.offset,
    }
    fact_id = str(decided_id("audit", arrival.topic_id, at, 0))
    return Fact(fact_id, agency_id, arrival.ts, kind, "failed", src, arrival.sha256, refs={})
