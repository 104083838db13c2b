"""The requests lane on a real PostgreSQL: what stands in the tables, the outbox and the ledger after a batch."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flux_common.contracts.envelope import Headers
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import InvalidMessage, InvariantBroken
from flux_common.kernel.ids import run_id, sha256_hex
from flux_ingest.handlers.requests import agency_of

if TYPE_CHECKING:
    from conftest import Bench

RUN = str(run_id("nasa", "r-1"))


async def test_an_acceptance_is_one_commit(bench: Bench, hand: Any) -> None:
    """Request row, token use, fact, decision and admitted run stand together, in the order in which they leave."""
    value, trace = hand.body(), "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    await bench.feed((value, [*hand.headers(), ("traceparent", trace.encode())]))
    (request,) = await bench.rows("SELECT * FROM requests")
    (use,) = await bench.rows("SELECT * FROM token_uses")
    told, headers = await bench.told(), await bench.headers()
    fact, accepted, admitted = (body for _, _, body in told)

    assert [(kind, key) for kind, key, _ in told] == [
        ("audit.fact", "nasa"), ("run.accepted", "r-1"), ("run.admitted", RUN)
    ]  # fmt: skip
    assert (request["request_id"], str(request["run_id"]), request["kafka_offset"]) == ("r-1", RUN, 0)
    assert request["request_sha256"].hex() == sha256_hex(value) == accepted["request_sha256"]
    assert use["body_sha256"] == request["request_sha256"]
    assert use["expires_at"] > datetime.now(UTC) + timedelta(days=14)
    assert (admitted["run_window"], admitted["agency_window"], admitted["request"]["use_case"]) == (32, 128, "research")
    assert (fact["type"], fact["receipt"], fact["actor"]["sub"]) == ("request.accepted", True, "producer-1")
    assert fact["refs"]["event_id"] == headers[1]["ce_id"]
    assert {one["traceparent"] for one in headers} == {trace}
    assert await bench.ledger() == []


async def test_no_token_and_no_header_of_the_producer_is_kept(bench: Bench, hand: Any) -> None:
    """Neither the outbox nor a table holds the token, its id or a header of the record."""
    token = hand.token(jti="a-very-particular-id")
    await bench.feed((hand.body(), [*hand.headers(token), ("x-secret", b"canary-header")]))
    everything = " ".join(
        [str(dict(row)) for row in await bench.outbox()]
        + [str(dict(row)) for table in ("requests", "token_uses") for row in await bench.rows(f"SELECT * FROM {table}")]
    )

    assert token.decode() not in everything
    assert token.decode().split(".")[2] not in everything
    assert "a-very-particular-id" not in everything
    assert "canary-header" not in everything


async def test_a_repeat_points_to_the_first_and_admits_nothing(bench: Bench, hand: Any) -> None:
    """The same body again, in the same batch and in a later one, is `repeated`; the ledger calls it a duplicate."""
    await bench.feed((hand.body(), hand.headers()), (hand.body(), hand.headers()))
    await bench.feed((hand.body(), hand.headers()))
    repeats = [body for kind, _, body in await bench.told() if kind == "run.repeated"]

    assert [(body["first"]["offset"], body["position"]["offset"]) for body in repeats] == [(0, 1), (0, 2)]
    assert [kind for kind, _, _ in await bench.told()].count("run.admitted") == 1
    assert await bench.ledger() == [(1, "duplicate", None, RUN), (2, "duplicate", None, RUN)]


async def test_another_body_under_the_same_id_is_a_conflict(bench: Bench, hand: Any) -> None:
    """The id is the first body's for ever; the refusal is recorded under its position and binds nothing."""
    await bench.feed((hand.body(), hand.headers()))
    await bench.feed((hand.body(labels={"a": "b"}), hand.headers()))
    told = await bench.told()
    (rejection,) = await bench.rows("SELECT * FROM rejections")

    assert [kind for kind, _, _ in told[3:]] == ["audit.fact", "run.rejected"]
    assert told[4][2]["code"] == "REQUEST_CONFLICT"
    assert (told[3][2]["type"], told[3][2]["outcome"], told[3][2]["receipt"]) == ("request.rejected", "refused", False)
    assert (rejection["kafka_offset"], rejection["request_id"], rejection["code"]) == (1, "r-1", "REQUEST_CONFLICT")


async def test_after_a_refusal_the_id_is_free(bench: Bench, hand: Any) -> None:
    """A producer may send the same id again with what was missing."""
    await bench.feed((hand.body(), hand.headers(b"a.b.c")), (hand.body(), hand.headers()))

    assert [kind for kind, _, _ in await bench.told() if kind.startswith("run.")] == [
        "run.rejected", "run.accepted", "run.admitted"
    ]  # fmt: skip


async def test_a_token_serves_one_body(bench: Bench, hand: Any) -> None:
    """The same token with another request is a replay; with the same request it is a repetition."""
    token = hand.token()
    await bench.feed((hand.body(), hand.headers(token)))
    await bench.feed((hand.body("r-2"), hand.headers(token)), (hand.body(), hand.headers(token)))
    decisions = [(kind, body.get("code")) for kind, key, body in await bench.told() if kind.startswith("run.")]

    assert decisions[2:] == [("run.rejected", "TOKEN_REPLAYED"), ("run.repeated", None)]


async def test_a_command_has_a_life_of_its_own(bench: Bench, hand: Any) -> None:
    """Commands are accepted once by their command id, repeated, and refused when the id is another's."""
    await bench.feed((hand.command(), hand.headers(kind="command")))
    await bench.feed((hand.command(), hand.headers(kind="command")))
    await bench.feed((hand.command(reason="changed my mind"), hand.headers(kind="command")))
    told = await bench.told()

    assert [(kind, key) for kind, key, _ in told] == [
        ("audit.fact", "nasa"), ("run.command-accepted", "r-1"), ("run.command-admitted", RUN),
        ("audit.fact", "nasa"), ("run.command-accepted", "r-1"),
        ("audit.fact", "nasa"), ("run.command-rejected", "r-1"),
    ]  # fmt: skip
    assert [told[1][2]["repeated"], told[4][2]["repeated"], told[6][2]["code"]] == [False, True, "COMMAND_CONFLICT"]
    assert (told[2][2]["command"], told[2][2]["reason"]) == ("cancel", "enough")


async def test_the_unproven_are_one_fact_of_the_system_log(bench: Bench, hand: Any) -> None:
    """Junk of any number is one fact a batch in the log of `_system`, and none in the agency's."""
    foreign = hand.headers(replace(hand, agency_id="loc").token())
    junk = [
        (b"\x00" * 10, []),
        (hand.body(), hand.headers(b"a.b.c")),
        (None, hand.headers(ce_type=b"x")),
        (b"", foreign),
    ]
    await bench.feed(*junk, (hand.body(), hand.headers()))
    facts = [(key, body) for kind, key, body in await bench.told() if kind == "audit.fact"]
    (system,) = [body for key, body in facts if key == "_system"]

    assert [key for key, _ in facts] == ["_system", "nasa"]
    assert (system["type"], system["refs"]["count"], system["refs"]["last_offset"]) == ("intake.refused", 4, 3)
    assert {name: n for name, n in system["refs"].items() if name not in ("count", "last_offset")} == {
        "header_invalid": 1, "token_malformed": 1, "event_type_unknown": 1, "agency_mismatch": 1
    }  # fmt: skip
    assert "actor" not in system


async def test_an_unreadable_record_is_a_dead_letter(bench: Bench, hand: Any) -> None:
    """Position, digest and code go to the agency's dead letters, never a byte of the value; the lane goes on."""
    await bench.feed((b"secret-bytes", []), (hand.body(), hand.headers()))
    (row,) = await bench.rows("SELECT * FROM dead_letters")
    letters = [(key, body) for kind, key, body in await bench.told() if kind == "record.dead-lettered"]

    assert (row["agency_id"], row["kafka_offset"], row["code"]) == ("nasa", 0, "HEADER_INVALID")
    assert letters[0][0] == "flux.nasa.run.requests.v1/0@0"
    assert letters[0][1]["sha256"] == sha256_hex(b"secret-bytes") == row["sha256"].hex()
    assert all(b"secret-bytes" not in row["value"] for row in await bench.outbox())
    assert await bench.ledger() == [(0, "dead_letter", "HEADER_INVALID", None)]
    assert len(await bench.rows("SELECT * FROM requests")) == 1


async def test_a_refused_batch_of_one_is_put_aside(bench: Bench) -> None:
    """What the loop gives up on becomes a dead letter with the loop's code, whatever the record was."""
    batch = await bench.batch((None, []))
    await bench.handler.refuse(batch, InvalidMessage(Code.TOO_LARGE, "The batch cannot be unfolded"))

    assert await bench.ledger() == [(0, "dead_letter", "TOO_LARGE", None)]
    assert [kind for kind, _, _ in await bench.told()] == ["audit.fact", "record.dead-lettered"]


async def test_a_lane_that_was_set_back_decides_nothing_anew(bench: Bench, hand: Any, postgres_admin: Any) -> None:
    """Records that come again at their own positions change nothing, whatever the verdict would be now."""
    records = [(hand.body(), hand.headers()), (hand.body("r-2", use_case="vr"), hand.headers()),
               (hand.command(), hand.headers(kind="command"))]  # fmt: skip
    batch = await bench.batch(*records)
    await bench.handler.apply(batch)
    before = await bench.told()
    await postgres_admin("UPDATE flux_ingest.lanes SET next_offset = 0")
    await postgres_admin("DELETE FROM flux_ingest.ledger")
    bench.handler._clock.at += timedelta(hours=3)  # type: ignore[attr-defined]
    await bench.handler.apply(batch)

    assert await bench.told() == before
    assert [(one[1], one[2]) for one in await bench.ledger()] == [
        ("duplicate", None), ("duplicate", "USE_CASE_NOT_AVAILABLE"), ("duplicate", None)
    ]  # fmt: skip


async def test_two_lanes_of_one_agency_accept_an_id_once(bench: Bench, hand: Any) -> None:
    """The same ids at the same time on two Kafka partitions: one acceptance each, the other repeated, no retry."""
    names = [f"r-{n}" for n in range(40)]
    one = await bench.batch(*[(hand.body(name), hand.headers()) for name in names], kp=0)
    two = await bench.batch(*[(hand.body(name), hand.headers()) for name in reversed(names)], kp=1)
    await asyncio.gather(bench.handler.apply(one), bench.handler.apply(two))
    kinds = [kind for kind, _, _ in await bench.told()]

    assert (kinds.count("run.accepted"), kinds.count("run.repeated"), kinds.count("run.admitted")) == (40, 40, 40)
    assert len(await bench.rows("SELECT * FROM requests")) == 40


async def test_ids_of_every_form_leave_a_fact(bench: Bench, hand: Any) -> None:
    """An id may begin with a sign that no word of a fact begins with; nothing stops for that."""
    odd = ["_x", ".x", ":x", "-x", "x" * 128]
    await bench.feed(*[(hand.body(name), hand.headers()) for name in odd])
    await bench.feed(*[(hand.command(name, name), hand.headers(kind="command")) for name in odd])
    kinds = [kind for kind, _, _ in await bench.told()]

    assert (kinds.count("run.accepted"), kinds.count("run.command-accepted")) == (5, 5)


async def test_an_unknown_key_is_told_to_whoever_keeps_the_keys(bench: Bench, hand: Any) -> None:
    """The refusal stands; the next look at the key files comes sooner."""
    await bench.feed((hand.body(), hand.headers(hand.token(signer="loc"))))

    assert bench.unknown_keys == ["https://issuer.nasa.example"]
    assert (await bench.told())[1][2]["code"] == "KEY_UNKNOWN"


async def test_events_have_the_same_ids_whenever_they_are_decided(bench: Bench, hand: Any) -> None:
    """An event's id follows from the record's position alone."""
    record = (hand.body(), hand.headers())
    batch = await bench.batch(record)
    await bench.handler.apply(batch)
    ids = {one["ce_id"] for one in await bench.headers()}
    other: Headers = [(name, value) for name, value in record[1] if value is not None]
    await bench.feed((hand.body("r-2"), other))

    assert len(ids) == 3
    assert len({one["ce_id"] for one in await bench.headers()}) == 5  # the token is spent: fact and refusal


async def test_a_lane_of_no_agency_is_a_contradiction(bench: Bench) -> None:
    """Such a lane is never taken; whoever works it nevertheless must stop."""
    with pytest.raises(InvariantBroken):
        await bench.handler.apply(await bench.batch((None, []), agency="esa"))


@pytest.mark.parametrize(
    ("topic", "agency_id"),
    [
        ("flux.nasa.run.requests.v1", "nasa"),
        ("flux.nasa.run.decisions.v1", None),
        ("flux.nasa.x.run.requests.v1", None),
        ("flux.Nasa.run.requests.v1", None),
        ("xflux.nasa.run.requests.v1", None),
        ("flux.nasa.run.requests.v10", None),
        ("flux._system.run.requests.v1", None),
    ],
)
def test_a_topic_names_its_agency(topic: str, agency_id: str | None) -> None:
    """Only a whole name of the right form does."""
    assert agency_of(topic) == agency_id
