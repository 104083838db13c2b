"""The end of a run: one terminal event for each attempt, proof of what it names, attested by a fact that asks for a receipt."""

from __future__ import annotations

from typing import Any

import pytest

from flux_common.contracts import catalogue
from flux_common.contracts.canonical import digest
from flux_common.kernel.codes import Code
from flux_common.kernel.ids import sha256_hex, terminal_id

from .conftest import Bench, Told, planned, to_the_end
from .records import AGENCY, PLAN, RUN, a_slice, admitted, answer, command, report, started

COMPLETED, FAILED, CANCELLED = "flux.run.completed.v1", "flux.run.failed.v1", "flux.run.cancelled.v1"


async def works_of(bench: Bench, codes: list[list[str]]) -> None:
    """Work a run whose partitions hold as many objects as codes, each rejected with its own."""
    works = await planned(bench, [len(one) for one in codes])
    for work, mine in zip(works, codes, strict=True):
        head, done = PLAN, []
        for start in range(0, len(mine), 64):
            page = sorted(mine[start : start + 64])
            seq, cursor = start // 64 + 1, start + len(page)
            rejects = [{"code": code, "count": 1} for code in page]
            one, head = a_slice(work, seq, head, cursor, len(page), rejected=len(page), rejects=rejects)
            done.append(one)
        await bench.reports(*done, report(work, catalogue.FINISHED, last_seq=len(done), head=head))
    await to_the_end(bench, [])


def attests(bench: Bench, event: Told) -> list[dict[str, Any]]:
    """Return the facts that name an event."""
    facts = [told.body for told in bench.told if told.type == catalogue.AUDIT_FACT.ce_type]
    return [fact for fact in facts if fact["refs"].get("event_id") == event.headers["ce_id"]]


async def test_a_completion_is_proof_of_its_chains(bench: Bench) -> None:
    """The root over the partitions' heads, in their order; the plan's digest; rejects by code; the id derived from it."""
    await works_of(bench, [["A_1", "B_1"], ["A_1", "C_1", "D_1"]])
    (event,) = await bench.events(COMPLETED)
    heads = await bench.rows("SELECT chain_head FROM flux.checkpoints WHERE kind = 'extract' ORDER BY number")

    assert event.body["chain_root"] == digest([head.hex() for (head,) in heads])
    assert (event.body["plan_digest"], event.body["transform_version"]) == (PLAN, "v1")
    assert event.body["rejects_by_code"] == {"A_1": 2, "B_1": 1, "C_1": 1, "D_1": 1}
    assert (event.topic, event.key, event.headers["ce_id"]) == (
        "flux.nasa.run.completions.v1",
        RUN,
        str(terminal_id(RUN, 1)),
    )


@pytest.mark.parametrize(
    ("ending", "type_", "outcome", "code"),
    [
        (COMPLETED, "run.completed", "ok", None),
        (FAILED, "run.failed", "failed", "SOURCE_MISSING"),
        (CANCELLED, "run.cancelled", "ok", None),
    ],
)
async def test_an_end_is_attested_before_it_is_told(
    bench: Bench, ending: str, type_: str, outcome: str, code: str | None
) -> None:
    """The fact names the event and the digest of its value, asks for a receipt, and leaves before the event."""
    (work,) = await planned(bench, [2])
    if ending == FAILED:
        await bench.reports(report(work, catalogue.FAILED, last_seq=0, code=code, cause="input", transient=False))
    elif ending == CANCELLED:
        await bench.runs(command("cancel", "c-1"))
    else:
        await bench.reports(*answer(work, []))
    await to_the_end(bench, [])
    (event,) = await bench.events(ending)
    (fact,) = attests(bench, event)
    order = [told.headers["ce_id"] for told in bench.told]
    places = [told for told in bench.told if told.body == fact]

    assert (fact["type"], fact["outcome"], fact.get("code"), fact["receipt"]) == (type_, outcome, code, True)
    assert fact["subject_sha256"] == sha256_hex(event.value)
    assert order.index(places[0].headers["ce_id"]) + 1 == order.index(event.headers["ce_id"])
    assert fact["refs"] | {"event_id": ""} == {
        "run_id": RUN,
        "run_attempt": 1,
        "request_id": "r-1",
        "event_id": "",
    }


async def test_a_failure_says_why_in_words(bench: Bench) -> None:
    """The machine's code and the one line for people; a code that is not ours is named as such."""
    (work,) = await planned(bench, [2])
    await bench.reports(report(work, catalogue.FAILED, last_seq=0, code="MARS_LOST", cause="policy", transient=False))
    await bench.dispatch()
    (event,) = await bench.events(FAILED)

    assert (event.body["code"], event.body["cause"]) == ("MARS_LOST", "policy")
    assert event.body["message"] == "The code is not one of Flux's."
    assert Code.SOURCE_MISSING.meaning.endswith(".")


async def test_each_attempt_ends_once_under_its_own_id(bench: Bench) -> None:
    """Fail, retry, fail, retry, complete: three events, three attempts, three ids."""
    await bench.runs(admitted())
    for attempt in range(2):
        await bench.dispatch()
        (plan,) = await bench.work()
        lost = report(plan, catalogue.FAILED, last_seq=0, code="SOURCE_MISSING", cause="input", transient=False)
        await bench.reports(lost, lost)
        await bench.dispatch()
        await bench.look()
        await bench.runs(command("retry", f"c-{attempt}"))
    await to_the_end(bench, [1])
    ends = [*await bench.events(FAILED), *await bench.events(COMPLETED)]

    assert [end.body["run_attempt"] for end in ends] == [1, 2, 3]
    assert [end.headers["ce_id"] for end in ends] == [str(terminal_id(RUN, attempt)) for attempt in (1, 2, 3)]


async def test_a_cancellation_counts_what_was_done(bench: Bench) -> None:
    """What was applied before the end is in its counts, and names the command."""
    (work,) = await planned(bench, [6])
    await bench.reports(started(work), a_slice(work, 1, PLAN, 2, 2)[0])
    await bench.runs(command("cancel", "c-1"))
    await bench.reports(report(work, catalogue.FAILED, last_seq=1, code="DROPPED", cause="policy", transient=True))
    await bench.dispatch()
    (event,) = await bench.events(CANCELLED)

    assert event.body["command_id"] == "c-1"
    assert event.body["counts"] == {"read": 2, "written": 1, "rejected": 1, "bytes_in": 10, "bytes_out": 5}


async def test_as_many_reject_codes_as_a_completion_can_name(bench: Bench) -> None:
    """Sixty-four codes, over two partitions: told, each with its count."""
    codes = [f"CODE_{n}" for n in range(64)]
    await works_of(bench, [codes[:40], codes[30:]])
    (event,) = await bench.events(COMPLETED)

    assert event.body["rejects_by_code"] == {code: 2 if code in codes[30:40] else 1 for code in codes}


async def test_a_run_with_more_reject_codes_than_a_completion_can_name_fails(bench: Bench) -> None:
    """It is no crash and no half-told completion."""
    await works_of(bench, [[f"CODE_{n}" for n in range(40)], [f"MORE_{n}" for n in range(40)]])
    (event,) = await bench.events(FAILED)

    assert (event.body["cause"], event.body["code"], event.body["agency_id"]) == (
        "transform",
        "COUNTS_MISMATCH",
        AGENCY,
    )
    assert await bench.events(COMPLETED) == []
