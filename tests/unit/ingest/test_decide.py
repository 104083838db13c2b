"""The decision: every row of its table, and what no order and no batching of records can change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_common.kernel.codes import Code
from flux_common.kernel.positions import Position, TopicPartition
from flux_ingest.domain.decide import decide
from flux_ingest.domain.model import (
    Accepted,
    Asked,
    DeadLettered,
    Decision,
    Finding,
    Holder,
    Kind,
    Known,
    Redelivered,
    Rejected,
    Repeated,
    SingleUse,
)

TP = TopicPartition("flux.nasa.run.requests.v1", 0)
LATER = datetime(2027, 1, 1, tzinfo=UTC)


def run(offset: int, name: str = "r-1", body: str = "a", use: str | None = None) -> Asked:
    """Return a request of that body, with that single use."""
    return Asked(TP.at(offset), Kind.RUN, "nasa", name, None, body * 64, SingleUse(use * 64, LATER) if use else None)


def command(offset: int, name: str = "c-1", body: str = "a", use: str | None = None) -> Asked:
    """Return a command of that body."""
    return replace(run(offset, "r-1", body, use), kind=Kind.COMMAND, command_id=name)


def holder(asked: Asked) -> Holder:
    """Return what an acceptance of `asked` leaves behind."""
    return Holder(asked.sha256, asked.position)


FIRST = run(1, use="1")
HELD = Known(requests={"r-1": holder(FIRST)}, uses={"1" * 64: holder(FIRST)})
SPENT_ELSEWHERE = Known(requests=HELD.requests, uses={"2" * 64: holder(run(8, "r-8", "c"))})
FIRST_COMMAND = command(2)
HELD_COMMAND = Known(commands={"c-1": holder(FIRST_COMMAND)})
REFUSED = Rejected(TP.at(3), Kind.RUN, Code.SCHEMA_VIOLATION, True, "r-1")
PUT_ASIDE = DeadLettered(TP.at(4), Code.NOT_UTF8)

TABLE: list[tuple[str, Finding, Known, type[Decision], Code | None]] = [
    ("a new request", run(9), Known(), Accepted, None),
    ("a new command", command(9), Known(), Accepted, None),
    ("a command that is called like a request", command(9, name="r-1"), HELD, Accepted, None),
    ("the same body again", run(9), HELD, Repeated, None),
    ("the same body with its own token again", run(9, use="1"), HELD, Repeated, None),
    ("another body", run(9, body="b"), HELD, Rejected, Code.REQUEST_CONFLICT),
    ("the same body under a token spent on another", run(9, use="2"), SPENT_ELSEWHERE, Repeated, None),
    ("the same command again", command(9), HELD_COMMAND, Repeated, None),
    ("another command", command(9, body="b"), HELD_COMMAND, Rejected, Code.COMMAND_CONFLICT),
    ("a spent token for another request", run(9, "r-2", "b", "1"), HELD, Rejected, Code.TOKEN_REPLAYED),
    ("a spent token for the held id", run(9, "r-1", "b", "1"), HELD, Rejected, Code.TOKEN_REPLAYED),
    ("a spent token for a command", command(9, body="b", use="1"), HELD, Rejected, Code.TOKEN_REPLAYED),
    ("the same record again", FIRST, HELD, Redelivered, None),
    ("the same command record again", FIRST_COMMAND, HELD_COMMAND, Redelivered, None),
    ("the accepted record, now refused", replace(REFUSED, position=TP.at(1)), HELD, Redelivered, None),
    ("a refused record again", run(5), Known(rejected={TP.at(5): "KEYS_STALE"}), Redelivered, None),
    ("a refused record", REFUSED, HELD, Rejected, Code.SCHEMA_VIOLATION),
    ("an unreadable record", PUT_ASIDE, HELD, DeadLettered, Code.NOT_UTF8),
]


@pytest.mark.parametrize(("name", "finding", "known", "kind", "code"), TABLE, ids=[row[0] for row in TABLE])
def test_the_table(name: str, finding: Finding, known: Known, kind: type[Decision], code: Code | None) -> None:
    """Each row of the table has its decision and its code."""
    (decision,) = decide([finding], known)

    assert type(decision) is kind
    if isinstance(decision, Rejected | DeadLettered):
        assert decision.code == code


def test_an_acceptance_spends_what_was_unspent() -> None:
    """The first acceptance remembers its single use; a body that was accepted under it before spends nothing new."""
    fresh, again = decide([run(1, "r-1", "a", "1")], Known()), decide([run(7, "r-7", "a", "1")], HELD)

    assert [one.spends for one in fresh + again if isinstance(one, Accepted)] == [SingleUse("1" * 64, LATER), None]


def test_a_repeat_names_the_first() -> None:
    """The producer is led to the decision that stands."""
    assert decide([run(9)], HELD) == [Repeated(run(9), TP.at(1))]


def test_twins_in_one_batch_are_judged_in_their_order() -> None:
    """Same body: repeated; other body: conflict; the other's token: replayed. All inside one batch."""
    batch = [
        run(1, use="1"),
        run(2),
        run(3, body="b"),
        run(4, "r-2", "c", "1"),
        command(5, use="2"),
        command(6, "c-2", "d", "2"),
    ]
    kinds = [type(one) for one in decide(batch, Known())]

    assert kinds == [Accepted, Repeated, Rejected, Rejected, Accepted, Rejected]


ASKED = st.builds(
    lambda kind, name, body, use: (kind, name, body, use),
    st.sampled_from([run, command]),
    st.sampled_from(["x-1", "x-2", "x-3"]),
    st.sampled_from("ab"),
    st.none() | st.sampled_from("12"),
)
BATCHES = st.lists(ASKED, max_size=14).map(
    lambda drawn: [make(offset, name, body, use) for offset, (make, name, body, use) in enumerate(drawn)]
)


def learned(known: Known, decisions: Sequence[Decision]) -> Known:
    """Return what is known after `decisions` were saved, as the tables hold it."""
    accepted = [one for one in decisions if isinstance(one, Accepted)]
    by_kind = {kind: {a.asked.name: holder(a.asked) for a in accepted if a.asked.kind is kind} for kind in Kind}
    return Known(
        requests={**known.requests, **by_kind[Kind.RUN]},
        commands={**known.commands, **by_kind[Kind.COMMAND]},
        uses={**known.uses, **{one.spends.digest: holder(one.asked) for one in accepted if one.spends}},
        rejected={**known.rejected, **{one.position: one.code for one in decisions if isinstance(one, Rejected)}},
    )


@given(BATCHES)
def test_an_id_is_accepted_once_and_a_single_use_serves_one_body(batch: list[Asked]) -> None:
    """I4: whatever comes in whatever order, no id has two acceptances, and no single use two bodies."""
    accepted = [one.asked for one in decide(batch, Known()) if isinstance(one, Accepted)]
    names = [(one.kind, one.name) for one in accepted]
    bodies: dict[str, set[str]] = {}
    for one in accepted:
        if one.single_use is not None:
            bodies.setdefault(one.single_use.digest, set()).add(one.sha256)

    assert len(set(names)) == len(names)
    assert all(len(found) == 1 for found in bodies.values())


@given(BATCHES, st.data())
def test_it_does_not_matter_where_a_batch_is_cut(batch: list[Asked], data: st.DataObject) -> None:
    """One batch, or two with a commit between: the same decisions."""
    cut = data.draw(st.integers(0, len(batch)))
    head = decide(batch[:cut], Known())
    tail = decide(batch[cut:], learned(Known(), head))

    assert head + tail == decide(batch, Known())


@given(BATCHES)
def test_a_redelivery_decides_nothing_anew(batch: list[Asked]) -> None:
    """After a commit, the same records again accept nothing, spend nothing and reject nothing a second time."""
    first = decide(batch, Known())
    again = decide(batch, learned(Known(), first))

    for before, after in zip(first, again, strict=True):
        expected = type(before) if isinstance(before, Repeated) else Redelivered
        assert type(after) is expected


@given(BATCHES)
def test_every_record_has_its_decision(batch: list[Asked]) -> None:
    """The n-th decision speaks of the n-th record."""

    def position(decision: Decision) -> Position:
        return decision.asked.position if isinstance(decision, Accepted | Repeated) else decision.position

    assert [position(one) for one in decide(batch, Known())] == [one.position for one in batch]
