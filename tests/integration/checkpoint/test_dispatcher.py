"""The dispatcher on a real PostgreSQL: what it hands out, takes back and ends, alone, after another and against another."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from flux_common.contracts import catalogue
from flux_common.kernel.errors import InvariantBroken

from .conftest import Bench, planned, to_the_end
from .records import PLAN, RUN, a_slice, admitted, answer, command, report, started, whole

FAILED, COMPLETED, CANCELLED = "flux.run.failed.v1", "flux.run.completed.v1", "flux.run.cancelled.v1"


async def lost(bench: Bench, work: dict[str, Any], code: str = "SOURCE_MISSING") -> None:
    """Report that an item cannot be done."""
    await bench.reports(report(work, catalogue.FAILED, last_seq=0, code=code, cause="input", transient=False))


# Windows.


async def test_the_windows_bound_what_is_in_hand_over_all_runs_of_an_agency(bench: Bench) -> None:
    """Each run has its own window, the agency one over all of its runs; what is finished makes room."""
    window = {"run_window": 3, "agency_window": 5}
    first = await planned(bench, [1] * 6, "r-1", **window)
    second = await planned(bench, [1] * 6, "r-2", **window)
    third = await planned(bench, [1] * 6, "r-3", **window)
    await bench.reports(*(one for work in first for one in whole(work)))
    await bench.look()
    more = await bench.work()

    assert [len(works) for works in (first, second, third)] == [3, 2, 0]
    assert len(more) == 3
    assert (await bench.row("SELECT count(*) FROM flux.checkpoints WHERE state = 'DISPATCHED'"))[0] == 5
    await finish(bench, [*second, *more])
    assert len(await bench.outbox(COMPLETED)) == 3


async def finish(bench: Bench, works: list[dict[str, Any]]) -> None:
    """Do this work, and whatever follows from it."""
    while works:
        await bench.reports(*(one for work in works for one in answer(work, [])))
        await bench.look()
        works = await bench.work()


async def test_steps_need_no_room_in_a_window(bench: Bench) -> None:
    """plan, gather and finalize are handed out while partitions fill the agency's window."""
    await planned(bench, [1, 1], "r-1", run_window=2, agency_window=2)
    await bench.runs(admitted("r-2", run_window=2, agency_window=2))
    await bench.dispatch()

    assert [work["kind"] for work in await bench.work()] == ["plan"]


@pytest.mark.parametrize("ending", ["failed", "cancelled", "deadline"])
async def test_an_ended_run_leaves_nothing_in_its_agencys_window(bench: Bench, ending: str) -> None:
    """What a run had in hand when it ended is nobody's: the next run of the agency gets the whole window."""
    window = {"run_window": 2, "agency_window": 2}
    works = await planned(bench, [1, 1, 1], "r-1", **window)
    await bench.reports(started(works[1]))
    if ending == "failed":
        await lost(bench, works[0])
    elif ending == "cancelled":
        await bench.runs(command("cancel", "c-1"))
        await bench.execute("UPDATE flux.runs SET cancel_deadline = now()")
    else:
        await bench.execute("UPDATE flux.runs SET deadline = now()")
    await bench.look()
    ended = await bench.row("SELECT state, run_attempt = terminal_attempt FROM flux.runs")
    next_works = await planned(bench, [1, 1], "r-2", **window)

    assert tuple(ended) == ("CANCELLED" if ending == "cancelled" else "FAILED", True)
    assert len(next_works) == 2


async def test_a_due_page_that_is_full_is_followed_at_once(bench: Bench) -> None:
    """Three hundred items with room for all of them go out in one go, not a page every fifteen seconds."""
    works = await planned(bench, [1] * 300, run_window=1000, agency_window=1000)

    assert [work["number"] for work in works] == list(range(300))


async def test_more_partitions_than_a_page_holds_and_more_heads_than_one_gather(bench: Bench) -> None:
    """1,001 partitions are made in two pages, gathered by two items in order, and completed as one."""
    works = await planned(bench, [1] * 1001, run_window=5000, agency_window=5000)
    await bench.reports(*(one for work in works for one in whole(work)))
    await bench.dispatch()
    gathers = await bench.work()
    await bench.reports(*(one for work in gathers for one in answer(work, [])))
    await to_the_end(bench, [])
    (completed,) = await bench.outbox(COMPLETED)

    assert [(gather["number"], len(gather["heads"])) for gather in gathers] == [(0, 1000), (1, 1)]
    assert [head["number"] for gather in gathers for head in gather["heads"]] == list(range(1001))
    assert (completed["partitions"], completed["counts"]["read"]) == (1001, 1001)


# Failures.


async def test_too_many_rejects_fail_the_run_early(bench: Bench) -> None:
    """rejected > ratio_max × objects: the run fails while it still works."""
    (work, _) = await planned(bench, [8, 2], on_reject={"policy": "skip", "ratio_max": 0.2})
    one, head = a_slice(work, 1, PLAN, 2, 2, rejected=2)
    two, _ = a_slice(work, 2, head, 4, 2, rejected=1)
    await bench.reports(one)
    await bench.dispatch()
    early = await bench.outbox(FAILED)
    await bench.reports(two)
    await bench.dispatch()
    (failed,) = await bench.outbox(FAILED)

    assert early == []
    assert (failed["cause"], failed["code"], failed["counts"]["rejected"]) == ("input", "REJECTS_EXCEEDED", 3)


async def test_the_policy_fail_fails_the_run_at_the_first_reject(bench: Bench) -> None:
    """`fail`: one reject is one too many."""
    (work,) = await planned(bench, [8], on_reject={"policy": "fail", "ratio_max": 1.0})
    await bench.reports(a_slice(work, 1, PLAN, 2, 2, rejected=1)[0])
    await bench.dispatch()
    (failed,) = await bench.outbox(FAILED)

    assert (failed["cause"], failed["code"]) == ("input", "REJECTS_EXCEEDED")


async def test_a_run_that_does_not_end_in_time_fails(bench: Bench) -> None:
    """run_ttl, by the database's clock; also of a run that nobody works at."""
    bench.run_ttl = timedelta(0)
    await bench.runs(admitted())
    await bench.dispatch()
    (failed,) = await bench.outbox(FAILED)

    assert (failed["cause"], failed["code"], failed["run_attempt"]) == ("policy", "RUN_TTL_EXCEEDED", 1)


async def test_a_changed_chain_is_not_resumed(bench: Bench) -> None:
    """The stored head is not the last link: no dispatch, and the run fails, cause infrastructure."""
    (work,) = await planned(bench, [6])
    one, _ = a_slice(work, 1, PLAN, 2, 2)
    again = report(work, catalogue.FAILED, last_seq=1, code="SOURCE_UNAVAILABLE", cause="input", transient=True)
    await bench.reports(one, again)
    await bench.tamper("UPDATE flux.checkpoint_hashes SET hash = $1", b"x" * 32)
    await bench.dispatch()
    (failed,) = await bench.outbox(FAILED)

    assert (failed["cause"], failed["code"]) == ("infrastructure", "CHAIN_CORRUPT")
    assert await bench.work() == []


async def test_a_chain_that_lost_a_link_is_not_resumed(bench: Bench) -> None:
    """The same where the last link is gone."""
    (work,) = await planned(bench, [6])
    one, _ = a_slice(work, 1, PLAN, 2, 2)
    again = report(work, catalogue.FAILED, last_seq=1, code="SOURCE_UNAVAILABLE", cause="input", transient=True)
    await bench.reports(one, again)
    await bench.tamper("DELETE FROM flux.checkpoint_hashes")
    await bench.dispatch()

    assert [one["code"] for one in await bench.outbox(FAILED)] == ["CHAIN_CORRUPT"]


async def test_a_run_that_cannot_be_worked_fails_and_the_others_go_on(bench: Bench) -> None:
    """A stored request that is none stops its run, not its shard."""
    await bench.runs(admitted("r-1"), admitted("r-2"))
    await bench.tamper("UPDATE flux.runs SET request = request - 'source' WHERE request_id = 'r-1'")
    await to_the_end(bench, [2])
    (failed,) = await bench.outbox(FAILED)
    (completed,) = await bench.outbox(COMPLETED)

    assert (failed["request_id"], failed["cause"], failed["code"]) == ("r-1", "transform", "SCHEMA_VIOLATION")
    assert completed["request_id"] == "r-2"


async def test_a_run_whose_events_the_database_refuses_fails_and_the_others_go_on(bench: Bench) -> None:
    """The same where a CHECK is in the way."""
    await bench.runs(admitted("r-1"), admitted("r-2"))
    await bench.tamper(
        f"ALTER TABLE flux_checkpoint.outbox ADD CHECK (NOT (topic = 'flux-internal.work.v1' AND key LIKE '{RUN}%'))"
    )
    await to_the_end(bench, [2])
    (failed,) = await bench.outbox(FAILED)

    assert (failed["request_id"], failed["cause"], failed["code"]) == ("r-1", "infrastructure", "RECORD_REFUSED")
    assert len(await bench.outbox(COMPLETED)) == 1


async def test_a_cancelled_run_that_cannot_be_worked_is_cancelled(bench: Bench) -> None:
    """CANCELLING leads to CANCELLED alone, whatever is wrong."""
    await bench.runs(admitted(), command("cancel", "c-1"))
    await bench.tamper(
        "ALTER TABLE flux_checkpoint.outbox ADD CHECK (NOT (value::text LIKE '%' || encode('run.cancelled', 'hex') || '%'))"
    )
    dispatcher, _ = bench.dispatcher()
    with pytest.raises(InvariantBroken):
        await dispatcher.run(asyncio.Event())
    await bench.tamper("ALTER TABLE flux_checkpoint.outbox DROP CONSTRAINT outbox_value_check1")
    await bench.dispatch()

    assert len(await bench.outbox(CANCELLED)) == 1


# Cancelling.


async def test_a_silent_worker_holds_a_cancelled_run_up_for_the_grace_only(bench: Bench) -> None:
    """Sixty seconds by the database's clock; then the run ends, and the worker's answer comes too late."""
    (work,) = await planned(bench, [6])
    await bench.reports(started(work))
    await bench.runs(command("cancel", "c-1"))
    await bench.look()
    waiting = await bench.outbox(CANCELLED)
    grace = await bench.row("SELECT cancel_deadline - now() BETWEEN '50 s' AND '60 s' FROM flux.runs")
    await bench.execute("UPDATE flux.runs SET cancel_deadline = now()")
    await bench.look()
    ended = await bench.outbox(CANCELLED)
    await bench.reports(*whole(work))

    assert (waiting, grace[0], len(ended)) == ([], True, 1)
    assert (await bench.ledger())[2] == 2


async def test_reports_apply_in_cancelling_and_start_nothing(bench: Bench) -> None:
    """What a worker still says is kept and counted; no further item goes out."""
    first, second = await planned(bench, [2, 2])
    await bench.reports(started(first), started(second))
    await bench.runs(command("cancel", "c-1"))
    await bench.reports(*whole(first))
    await bench.dispatch()
    dropped = report(second, catalogue.FAILED, last_seq=0, code="DROPPED", cause="policy", transient=True)
    await bench.reports(dropped)
    await bench.dispatch()
    (ended,) = await bench.outbox(CANCELLED)

    assert ended["counts"]["read"] == 2
    assert await bench.work() == []
