"""Sealing on a real PostgreSQL: every record of the facts lane becomes one leaf, whatever it is and whatever happens."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from flux_audit.domain.tree_head import TreeHead
from flux_common.contracts.envelope import Outgoing
from flux_common.kernel.errors import Fenced, InvalidMessage
from flux_common.kernel.ids import SYSTEM_AGENCY, sha256_hex
from flux_common.kernel.positions import Lane
from flux_common.observability import metrics

from .conftest import LANE, OTHER_LANE, Bench, Benches, event_id, fact


class BrokenHand:
    """A signer whose key fails in the middle of a transaction."""

    def sign(self, head: TreeHead) -> str:
        raise RuntimeError("no key")


async def ledger(bench: Bench) -> tuple[int, ...]:
    (row,) = await bench.rows(
        "nasa", "SELECT sum(effects), sum(duplicates), sum(dead_letters), sum(to_offset - from_offset) FROM ledger"
    )
    return tuple(int(value) for value in row)


async def test_batches_of_several_agencies_make_a_gap_free_log_for_each(bench: Bench) -> None:
    """Leaves follow the offsets, each log is numbered from 0, and each root is the one that is built from nothing."""
    agencies = ["nasa", "library-of-congress", SYSTEM_AGENCY, "nasa", "national-archives"]
    for start in (0, 7, 40):
        await bench.feed([fact(n, agencies[n % 5]) for n in range(start, start + 13)])
    entries = await bench.entries()

    assert [entry["refs"]["n"] for entry in entries] == [
        n for start in (0, 7, 40) for n in range(start, start + 13) if n % 5 in (0, 3) and (start != 7 or n > 12)
    ]
    sizes = {agency: await bench.check_log(agency) for agency in agencies}
    assert sum(sizes.values()) == 13 + 7 + 13
    assert await ledger(bench) == (33, 6, 0, 39)


async def test_a_repeated_fact_is_a_duplicate_and_other_contents_are_a_conflict(bench: Bench) -> None:
    """In one batch as in a later one: the same fact makes nothing, another under its id makes a leaf that says so."""
    conflicts = metrics.facts_sealed.labels("conflict")._value
    before = conflicts.get()
    await bench.feed([fact(1), fact(1), fact(1, note="b"), fact(2)])
    await bench.feed([fact(2), fact(1, note="c"), fact(3)])
    entries = await bench.entries()

    assert [entry["type"] for entry in entries] == [
        "run.accepted", "conflict", "run.accepted", "conflict", "run.accepted",
    ]  # fmt: skip
    assert [entry["subject_sha256"] for entry in entries if entry["type"] == "conflict"] == [
        sha256_hex(fact(1, note=note).value) for note in ("b", "c")
    ]
    assert entries[1]["refs"]["conflicts_with"] == entries[0]["refs"]["fact_id"]
    assert (await bench.check_log(), await ledger(bench)) == (5, (5, 2, 0, 7))
    assert conflicts.get() - before == 2


def damaged() -> dict[str, Outgoing]:
    good = fact(1)
    headers = [(name, value) for name, value in good.headers if name != "ce_id"]
    return {
        "no JSON": replace(good, value=b"\xff\x00"),
        "no id": replace(good, headers=headers),
        "an id that is none": replace(good, headers=[*headers, ("ce_id", b"7")]),
        "another event": replace(good, headers=[*good.headers[:3], ("ce_type", b"flux.run.failed.v1")]),
        "another agency than its key": replace(good, key="library-of-congress"),
        "a receipt for no event": replace(good, value=good.value.replace(str(event_id(1)).encode(), b"event")),
    }


@pytest.mark.parametrize("what", damaged())
async def test_an_unreadable_fact_is_sealed_as_that_in_the_log_that_its_key_names(bench: Bench, what: str) -> None:
    """It is no dead letter: position and digest are in the log, and the agency's other facts are sealed as ever."""
    record = damaged()[what]
    await bench.feed([fact(5, record.key or ""), record, fact(6, record.key or "")])
    entries = await bench.entries(record.key or "")

    assert [entry["type"] for entry in entries] == ["run.accepted", "unreadable", "run.accepted"]
    assert (entries[1]["src"]["offset"], entries[1]["subject_sha256"]) == (1, sha256_hex(record.value))
    assert await ledger(bench) == (3, 0, 0, 3)
    assert await bench.check_log(record.key or "") == 3


@pytest.mark.parametrize("key", [None, "", "NASA", "nasa\n", "a,b", "_lane"])
async def test_what_names_no_agency_is_sealed_into_the_reserved_log(bench: Bench, key: str | None) -> None:
    """A key that is no agency's opens no log of its own; the body is not asked, for the key contradicts it."""
    await bench.feed([replace(fact(1), key=key)])

    assert [entry["type"] for entry in await bench.entries(SYSTEM_AGENCY)] == ["unreadable"]
    assert await bench.rows("nasa", "SELECT 1 FROM flux.audit_log WHERE agency_id = 'nasa'") == []


async def test_a_refused_record_is_sealed_too(bench: Bench) -> None:
    """What the loop or the database refuses comes as `refuse`: it has a leaf, and the lane goes on."""
    lane = await bench.take()
    batch = bench.batch(lane, [fact(1)])
    await bench.handler.refuse(batch, InvalidMessage("TOO_LARGE", "its batch cannot be unfolded"))

    assert [entry["type"] for entry in await bench.entries()] == ["unreadable"]
    assert await bench.check_log() == 1


async def test_a_transaction_that_fails_leaves_nothing(benches: Benches) -> None:
    """A failure between sealing and commit: no leaf, no node, no head row, no event, and the lane stands; then it goes."""
    broken = benches(hand=BrokenHand())
    with pytest.raises(RuntimeError):
        await broken.feed([fact(1), fact(2)])
    left = [
        await broken.rows("nasa", f"SELECT 1 FROM {table}") for table in ("audit_log", "nodes", "tree_heads", "outbox")
    ]
    (lane,) = await broken.rows("nasa", "SELECT next_offset FROM lanes")
    successor = benches()
    await successor.feed([fact(1), fact(2)])

    assert (left, lane["next_offset"]) == ([[], [], [], []], 0)
    assert await successor.check_log() == 2


async def test_an_owner_of_old_seals_nothing(benches: Benches) -> None:
    """After another process took the lane, the old owner's batch changes nothing at all."""
    old, new = benches(), benches()
    stale = await old.take()
    await new.feed([fact(1)])
    with pytest.raises(Fenced):
        await old.handler.apply(old.batch(stale, [fact(2)]))

    assert await new.check_log() == 1


async def test_writers_at_the_same_time_cannot_fork_a_log(benches: Benches) -> None:
    """Two lanes that seal the same agencies at once: each log has one leaf for each number, and one root."""
    one, two = benches(), benches()
    await asyncio.gather(one.take(LANE), two.take(OTHER_LANE))

    async def write(bench: Bench, lane: Lane, first: int) -> None:
        for number in range(first, first + 200, 5):
            batch = [fact(n, agency) for n in range(number, number + 5) for agency in ("nasa", "library-of-congress")]
            await bench.feed(batch, lane.tp)

    await asyncio.gather(
        write(one, one.taken[LANE], 0), write(two, two.taken[OTHER_LANE], 1000), _sign_meanwhile(one, 30)
    )

    assert [await one.check_log(agency) for agency in ("nasa", "library-of-congress")] == [400, 400]
    numbers = [entry["refs"]["n"] for entry in await one.entries()]
    assert [n for n in numbers if n < 1000] == list(range(200))
    assert [n for n in numbers if n >= 1000] == list(range(1000, 1200))


async def _sign_meanwhile(bench: Bench, rounds: int) -> None:
    for _ in range(rounds):
        bench.clock.ticks += 1
        await bench.leftovers.round()
        await asyncio.sleep(0.01)
