"""Each fact becomes exactly one leaf, in the order of offsets; what cannot be sealed as it came is sealed as that."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from flux_audit.domain.entry import Fact
from flux_audit.domain.merkle import Frontier, append, leaf_hash
from flux_audit.domain.sealing import Arrival, Fate, Sealed, SealedLeaf, known_facts, seal
from flux_common.kernel.ids import SYSTEM_AGENCY, sha256_hex
from flux_common.kernel.positions import TopicPartition

LANE = TopicPartition("flux-internal.audit.v1", 3)
TS = "2026-11-24T10:00:00.125Z"


def fact(number: int, agency: str = "nasa") -> Fact:
    return Fact(f"fact-{number}", agency, TS, "run.accepted", "ok", {"service": "ingest"}, "ab" * 32, {"n": number})


def arrival(offset: int, what: Fact | None, value: str | None = None) -> Arrival:
    return Arrival("topic-id", LANE.at(offset), TS, sha256_hex((value or repr(what)).encode()), what)


def fates(sealed: Sealed) -> list[Fate]:
    return [sealed.fates[position] for position in sorted(sealed.fates)]


@given(numbers=st.lists(st.integers(0, 9), max_size=20), size=st.integers(0, 9))
def test_each_fact_once_in_offset_order(numbers: list[int], size: int) -> None:
    """Whatever repeats, every fact is one leaf, leaves are gap-free from the tree's size, and the tree is theirs."""
    frontier = append(Frontier(), [leaf_hash(b"%d" % number) for number in range(size)]).frontier
    arrivals = [arrival(offset, fact(number)) for offset, number in enumerate(numbers)]
    sealed = seal("nasa", frontier, reversed(arrivals), {})

    assert [leaf.fact.fact_id for leaf in sealed.leaves] == [f"fact-{number}" for number in dict.fromkeys(numbers)]
    assert [leaf.seq for leaf in sealed.leaves] == list(range(size, size + len(sealed.leaves)))
    assert [json.loads(leaf.entry)["seq"] for leaf in sealed.leaves] == [leaf.seq for leaf in sealed.leaves]
    assert sealed.appended == append(frontier, [leaf_hash(leaf.entry) for leaf in sealed.leaves])
    assert fates(sealed).count(Fate.DUPLICATE) == len(numbers) - len(set(numbers))


def test_a_fact_that_was_sealed_before_makes_nothing() -> None:
    """The same id with the same bytes is a duplicate, and the tree stands still."""
    again = arrival(7, fact(1))
    sealed = seal("nasa", Frontier(), [again], {"fact-1": again.sha256})

    assert (sealed.leaves, sealed.appended.frontier, fates(sealed)) == ((), Frontier(), [Fate.DUPLICATE])


def test_a_known_id_with_other_bytes_is_sealed_as_conflict() -> None:
    """It is neither dropped nor let in under the id: a leaf of audit's own says so, and names position and digest."""
    other = arrival(7, fact(1), "other bytes")
    sealed = seal("nasa", Frontier(), [other], {"fact-1": sha256_hex(b"first bytes")})
    entry = json.loads(sealed.leaves[0].entry)

    assert fates(sealed) == [Fate.CONFLICT]
    assert (entry["type"], entry["subject_sha256"]) == ("conflict", other.sha256)
    assert entry["refs"]["conflicts_with"] == "fact-1"
    assert entry["refs"]["fact_id"] == sealed.leaves[0].fact.fact_id != "fact-1"


def test_what_cannot_be_read_is_sealed_as_unreadable() -> None:
    """A record without a readable fact, of another agency, or that fits no entry, still leaves its trace."""
    records = [
        arrival(1, None, "junk"),
        arrival(2, fact(2, agency="library-of-congress")),
        arrival(3, replace(fact(3), refs={"ratio": 0.5})),
    ]
    sealed = seal("nasa", Frontier(), records, {})
    entries = [json.loads(leaf.entry) for leaf in sealed.leaves]

    assert fates(sealed) == [Fate.UNREADABLE] * 3
    assert [entry["type"] for entry in entries] == ["unreadable"] * 3
    assert [entry["agency_id"] for entry in entries] == ["nasa"] * 3
    assert [entry["src"]["offset"] for entry in entries] == [1, 2, 3]
    assert [entry["subject_sha256"] for entry in entries] == [record.sha256 for record in records]
    assert len({leaf.fact.fact_id for leaf in sealed.leaves}) == 3


def test_ids_of_what_audit_states_are_derived() -> None:
    """Deciding the same record again names the same leaf; a topic created anew under the same name does not."""
    one = seal("nasa", Frontier(), [arrival(1, None, "junk")], {}).leaves[0]
    again = seal("nasa", Frontier(), [arrival(1, None, "junk")], {}).leaves[0]
    elsewhere = seal("nasa", Frontier(), [replace(arrival(1, None, "junk"), topic_id="newer")], {}).leaves[0]

    assert one == again
    assert one.fact.fact_id != elsewhere.fact.fact_id


def test_a_sealed_fact_is_known_by_its_leaf() -> None:
    """Encoded again as the leaf it became, the same fact has the same hash; whatever differs in it does not."""
    first = seal("nasa", Frontier(), [arrival(0, fact(0)), arrival(1, fact(1))], {}).leaves[1]
    sealed = {"fact-1": SealedLeaf(first.seq, first.hash)}
    same, other = arrival(7, fact(1), "same"), arrival(8, replace(fact(1), outcome="failed"), "other")

    assert known_facts([same, other, arrival(9, fact(2)), arrival(10, None)], sealed) == {"fact-1": same.sha256}
    assert known_facts([other], sealed) == {"fact-1": ""}
    assert known_facts([arrival(9, replace(fact(1), refs={"ratio": 0.5}))], sealed) == {"fact-1": ""}
    assert fates(seal("nasa", Frontier(), [same, other], known_facts([same, other], sealed))) == [
        Fate.DUPLICATE,
        Fate.CONFLICT,
    ]


def test_a_receipt_is_for_the_event_that_a_fact_names() -> None:
    """The named event, else the fact itself; none where none is wanted, or where nobody can receive it."""
    wanted = replace(fact(1), receipt=True)
    facts = [
        wanted,
        replace(wanted, refs={"event_id": "event-1"}),
        fact(1),
        replace(wanted, agency_id=SYSTEM_AGENCY),
    ]
    receipts = [seal(one.agency_id, Frontier(), [arrival(0, one)], {}).leaves[0].receipt_for for one in facts]

    assert receipts == ["fact-1", "event-1", None, None]
