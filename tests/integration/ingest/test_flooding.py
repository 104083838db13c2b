"""The flood brake on a real PostgreSQL: one decision and one fact for what is too much, whatever comes again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flux_client.development import DevelopmentAgency, write_development_registry
from flux_common.auth import load_trust
from flux_common.kernel.clock import FixedClock
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import InvalidMessage
from flux_ingest.adapters.decisions import PostgresDecisions
from flux_ingest.handlers.expiry import COUNTS_KEPT, UsesExpiry
from flux_ingest.handlers.pacing import BITE, PRESS_REST_S

if TYPE_CHECKING:
    from conftest import Bench

LIMIT = 3
FLOODED = ("intake.flooded", "INTAKE_FLOODED")


@pytest.fixture
def braked(bench: Bench, hand: Any) -> Bench:
    """A bench whose agency may have three refusals a minute."""
    write_development_registry(hand.keys, [DevelopmentAgency("nasa", "NASA", rejects_per_minute=LIMIT)])
    bench.trust = load_trust(hand.keys / "agencies.yaml", datetime.now(UTC))
    return bench


async def told(bench: Bench) -> list[tuple[str, str | None]]:
    """Return type and code of each decision and dead letter in the outbox."""
    return [(kind, body.get("code")) for kind, _, body in await bench.told() if kind != "audit.fact"]


async def test_what_is_too_much_shares_one_decision(braked: Bench, hand: Any) -> None:
    """The first three refusals have their own answers; the others one, around an acceptance that is told as ever."""
    stale, at = (hand.body("r-2"), hand.headers(b"a.b.c")), datetime.now(UTC)
    rest_s = await braked.handler.apply(
        await braked.batch(stale, stale, (b"", []), stale, (hand.body(), hand.headers()), (b"", []), stale, at=at)
    )
    (flood,) = [body for kind, _, body in await braked.told() if kind == "intake.flooded"]
    facts = [body for kind, _, body in await braked.told() if kind == "audit.fact"]
    (kept,) = await braked.rows("SELECT * FROM floods")

    assert await told(braked) == [
        FLOODED,
        ("run.rejected", "TOKEN_MALFORMED"),
        ("run.rejected", "TOKEN_MALFORMED"),
        ("record.dead-lettered", "HEADER_INVALID"),
        ("run.accepted", None),
        ("run.admitted", None),
    ]
    assert rest_s == PRESS_REST_S
    assert flood["offsets"] == [{"first": 3, "last": 3}, {"first": 5, "last": 6}]
    assert (flood["position"]["offset"], flood["count"]) == (3, 3)
    assert flood["codes"] == {"HEADER_INVALID": 1, "TOKEN_MALFORMED": 2}
    assert [(fact["type"], fact["agency_id"]) for fact in facts] == [
        ("intake.refused", "_system"), ("intake.flooded", "_system"), ("request.accepted", "nasa")
    ]  # fmt: skip
    assert (kept["last_offset"], kept["refused"]) == (6, 3)
    assert len(await braked.rows("SELECT * FROM rejections")) == 2
    assert await braked.ledger() == [(2, "dead_letter", "HEADER_INVALID", None)]


async def test_who_presses_rests_until_a_batch_is_calm(braked: Bench, hand: Any) -> None:
    """Within the limit, yet faster than the minute allows: each has its answer, and the lane rests; the others' do not."""
    stale, at = (hand.body(), hand.headers(b"a.b.c")), datetime.now(UTC).replace(second=0, microsecond=0)
    past = at - timedelta(minutes=5)
    rests = [
        await braked.handler.apply(await braked.batch(*records, at=when))
        for when, records in (
            (at + timedelta(minutes=1), [stale] * 2),  # a minute to come allows a head start alone
            (at, [(hand.body("r-good"), hand.headers())]),
            (past, [stale] * LIMIT),
            (past, [stale]),
        )
    ]

    assert rests == [PRESS_REST_S, 0.0, 0.0, PRESS_REST_S]
    assert [code for _, code in await told(braked)].count("TOKEN_MALFORMED") == 2 + LIMIT


async def test_who_repeats_too_often_is_slowed_and_answered_as_ever(braked: Bench, hand: Any) -> None:
    """One accepted body, sent again and again: each repetition has its own answer; past the limit they come in bites."""
    at = datetime.now(UTC) - timedelta(minutes=5)
    good, other = ((hand.body(name), hand.headers(hand.token(issued_at=at))) for name in ("r-1", "r-2"))
    paces = []
    for records in ([good] * (1 + LIMIT), [good], [other]):
        batch = await braked.batch(*records, at=at)
        paces.append((await braked.handler.apply(batch), braked.handler.records_max(batch.lane.tp)))

    assert paces == [(0.0, None), (PRESS_REST_S, BITE), (0.0, None)]
    assert [kind for kind, _ in await told(braked)].count("run.repeated") == LIMIT + 1
    assert await braked.rows("SELECT * FROM refusals") == []


async def test_all_lanes_of_an_agency_share_the_minute(braked: Bench, hand: Any) -> None:
    """Another Kafka partition goes on counting; the next minute begins anew, and so does an earlier one."""
    stale, at = (hand.body(), hand.headers(b"a.b.c")), datetime.now(UTC)
    for kp, when in ((0, at), (1, at), (1, at + timedelta(minutes=1)), (2, at - timedelta(minutes=1))):
        await braked.handler.apply(await braked.batch(stale, stale, kp=kp, at=when))

    assert [code for _, code in await told(braked)].count("INTAKE_FLOODED") == 1
    assert [code for _, code in await told(braked)].count("TOKEN_MALFORMED") == LIMIT + 4


async def test_a_lane_that_was_set_back_finds_the_flood(braked: Bench, hand: Any, postgres_admin: Any) -> None:
    """Cut otherwise and judged later, the same records change nothing and are not counted again."""
    stale = (hand.body(), hand.headers(b"a.b.c"))
    batch = await braked.batch(*[stale] * 6)
    await braked.handler.apply(batch)
    before, counted = await braked.told(), await braked.rows("SELECT * FROM refusals")
    await postgres_admin("UPDATE flux_ingest.lanes SET next_offset = 0")
    await postgres_admin("DELETE FROM flux_ingest.ledger")
    braked.taken.clear()
    for _ in range(2):
        await braked.handler.apply(await braked.batch(*[stale] * 3))

    assert await braked.told() == before
    assert await braked.rows("SELECT * FROM refusals") == counted
    assert [(one[1], one[2]) for one in await braked.ledger()] == [("duplicate", "TOKEN_MALFORMED")] * LIMIT + [
        ("duplicate", "INTAKE_FLOODED")
    ] * 3


async def test_a_proven_flood_is_a_line_of_the_agencys_log(braked: Bench, hand: Any) -> None:
    """Where a proven sender is among them, the agency's own log has the fact."""
    await braked.feed(*[(hand.body(f"r-{n}", use_case="vr"), hand.headers()) for n in range(5)])
    (fact,) = [body for kind, _, body in await braked.told() if kind == "audit.fact" and body["type"] == FLOODED[0]]

    assert (fact["agency_id"], fact["outcome"], fact["refs"]["count"]) == ("nasa", "refused", 2)


async def test_what_nobody_can_read_is_braked_as_well(braked: Bench) -> None:
    """A small batch can unfold to thousands of records: put aside together, they share one decision past the limit."""
    batch = await braked.batch(*[(None, [])] * 9)
    await braked.handler.refuse(batch, InvalidMessage(Code.TOO_LARGE, "unfolds without bound"))
    (flood,) = [body for kind, _, body in await braked.told() if kind == "intake.flooded"]

    assert await told(braked) == [FLOODED, *[("record.dead-lettered", "TOO_LARGE")] * LIMIT]
    assert (flood["offsets"], flood["codes"]) == ([{"first": 3, "last": 8}], {"TOO_LARGE": 6})
    assert await braked.ledger() == [(offset, "dead_letter", "TOO_LARGE", None) for offset in range(LIMIT)]


async def test_counts_are_forgotten_when_no_topic_has_their_records(braked: Bench, hand: Any) -> None:
    """A minute is kept while a record of it may still be read."""
    now = datetime.now(UTC)
    for at in (now, now - COUNTS_KEPT - timedelta(minutes=2)):
        await braked.handler.apply(await braked.batch((hand.body(), hand.headers(b"a.b.c")), at=at))
    await UsesExpiry(braked.database, PostgresDecisions, FixedClock(now)).run(["nasa"])

    assert len(await braked.rows("SELECT * FROM refusals")) == 1
