"""The runs lane on a real PostgreSQL: runs are recorded once, commands take effect in their order or are refused."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import asyncpg
import pytest

from flux_checkpoint.adapters.runs import PostgresRuns
from flux_common.contracts import catalogue
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import ValidationFailed
from flux_common.kernel.ids import run_id

from .conftest import Bench, planned, refusing, to_the_end
from .records import AGENCY, RUN, Written, admitted, answer, command, report, started, whole

APPLIED, REFUSED = catalogue.COMMAND_APPLIED.ce_type, catalogue.COMMAND_REFUSED.ce_type
COMMANDS = ("pause", "resume", "retry", "cancel")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def saying(one: Written, **changed: Any) -> Written:
    """Return a record whose body says something else."""
    return one[0], json.dumps(json.loads(one[1] or b"") | changed).encode()


async def test_a_run_that_is_admitted_again_is_a_duplicate(bench: Bench) -> None:
    """The same accepted request always names the same run: in one batch, in the next one, and only once in the history."""
    await bench.runs(admitted(), admitted(), admitted("r-2"))
    await bench.runs(admitted())
    history = await bench.rows("SELECT kafka_offset FROM flux.checkpoint_events ORDER BY 1")
    places = await bench.rows("SELECT request_id, kafka_offset FROM flux.runs ORDER BY 1")

    assert await bench.ledger() == (2, 2, 0, 0)
    assert history == [(0,), (2,)]
    assert places == [("r-1", 0), ("r-2", 2)]


async def test_commands_take_effect_in_their_order_within_a_batch(bench: Bench) -> None:
    """A command before its run's admission finds no run, whether both came in one batch or in two."""
    await bench.runs(command("cancel", "c-0"), admitted(), command("pause", "c-1"), command("resume", "c-2"))
    refused, applied = await bench.outbox(REFUSED), await bench.outbox(APPLIED)

    assert [(one["command_id"], one["code"]) for one in refused] == [("c-0", "RUN_UNKNOWN")]
    assert [(one["command_id"], one["state"]) for one in applied] == [("c-1", "ADMITTED"), ("c-2", "ADMITTED")]


async def test_a_batch_locks_agencies_before_runs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order of its records: two lanes that admit and command each other's agencies never wait in a ring."""
    await bench.runs(admitted())
    order: list[str] = []
    for name in ("insert_agencies", "lock_runs", "insert_runs"):
        monkeypatch.setattr(PostgresRuns, name, told(name, getattr(PostgresRuns, name), order))
    await bench.runs(command("pause", "c-1"), admitted("r-2", agency="loc"), command("resume", "c-2"))

    assert order[:2] == ["insert_agencies", "lock_runs"]
    assert "insert_agencies" not in order[1:]


def told(name: str, method: Any, order: list[str]) -> Any:
    """Return a method that says when it is called."""

    async def telling(self: PostgresRuns, *arguments: Any) -> Any:
        order.append(name)
        return await method(self, *arguments)

    return telling


async def test_a_command_on_an_unknown_run_is_refused_to_its_agency(bench: Bench) -> None:
    """RUN_UNKNOWN: an event on the completions topic, and a fact that attests it."""
    await bench.runs(command("pause", "c-1"))
    (refused,) = await bench.events(REFUSED)
    (fact,) = await bench.facts("command.refused")

    assert (refused.topic, refused.key, refused.body["code"]) == ("flux.nasa.run.completions.v1", RUN, "RUN_UNKNOWN")
    assert (fact["code"], fact["outcome"], fact["refs"]["event_id"]) == (
        "RUN_UNKNOWN",
        "refused",
        refused.headers["ce_id"],
    )
    assert await bench.ledger() == (1, 0, 0, 0)


async def test_what_cannot_be_read_is_put_aside_and_the_rest_is_applied(bench: Bench) -> None:
    """Unknown types, no JSON, and a run id that is not its request's: dead letters under `_system`."""
    other = str(run_id("esa", "r-1"))
    await bench.runs(
        ([], None),
        (admitted()[0], b"no json"),
        report(
            {"agency_id": AGENCY, "run_id": RUN, "kind": "plan", "number": 0, "term": 1}, catalogue.ALIVE, counter=1
        ),
        saying(admitted("r-2"), run_id=other),
        saying(command("cancel", "c-1"), run_id=other),
        admitted(),
    )

    assert await bench.letters() == [
        ("_system", code)
        for code in ("HEADER_INVALID", "SCHEMA_VIOLATION", "EVENT_TYPE_UNKNOWN", "KEY_MISMATCH", "KEY_MISMATCH")
    ]
    assert await bench.rows("SELECT request_id FROM flux.runs") == [("r-1",)]
    assert len(await bench.facts("record.dead-lettered")) == 5


async def test_odd_but_legal_ids_live_a_whole_life(bench: Bench) -> None:
    """Whatever ids the contract allows can be admitted, paused, failed, retried and cancelled: every fact can hold them."""
    names = ["_", ":", "-", ".", "_:.-", ":" * 128, "_" * 128, "a" * 128]
    named = {name: [name + name[0] * n if len(name) < 128 else name for n in range(4)] for name in names}
    await bench.runs(*(admitted(name) for name in names))
    await bench.runs(*(command("pause", named[name][0], name) for name in names))
    await bench.runs(*(command("resume", named[name][1], name) for name in names))
    await bench.dispatch()
    lost = {"last_seq": 0, "code": "SOURCE_MISSING", "cause": "input", "transient": False}
    await bench.reports(*(report(plan, catalogue.FAILED, **lost) for plan in await bench.work()))
    await bench.dispatch()
    await bench.runs(*(command("retry", named[name][2], name) for name in names))
    await bench.runs(*(command("cancel", named[name][3], name) for name in names))
    await bench.dispatch()
    failed, cancelled = await bench.outbox("flux.run.failed.v1"), await bench.outbox("flux.run.cancelled.v1")

    assert Counter(one["command"] for one in await bench.outbox(APPLIED)) == dict.fromkeys(COMMANDS, len(names))
    assert sorted(one["request_id"] for one in failed) == sorted(names)
    assert {one["request_id"]: one["command_id"] for one in cancelled} == {name: named[name][3] for name in names}


async def test_a_run_that_the_database_refuses_is_told_to_its_agency(bench: Bench) -> None:
    """A request with a character that jsonb cannot hold: a dead letter of the agency, and its neighbours are admitted."""
    await bench.runs(admitted(), admitted("r-2", labels={"a": "\0"}), admitted("r-3"))
    (letter,) = await bench.events("flux.record.dead-lettered.v1")

    assert await bench.letters() == [(AGENCY, "RECORD_REFUSED")]
    assert (letter.topic, letter.body["position"]["offset"]) == ("flux.nasa.dead-letters.v1", 1)
    assert await bench.rows("SELECT request_id FROM flux.runs ORDER BY 1") == [("r-1",), ("r-3",)]


async def test_an_unreadable_record_that_is_refused_is_nobodys(bench: Bench) -> None:
    """`refuse` reads again: what it cannot read is buried under `_system`."""
    await bench.runs(admitted())
    await refusing(bench, catalogue.RUNS.name, ([], b"x"), ValidationFailed(Code.TOO_LARGE, "too large"))

    assert await bench.letters() == [("_system", "TOO_LARGE")]


@pytest.mark.parametrize(("carried", "kept"), [(TRACE, TRACE), ("nonsense \x01", None), (None, None)])
async def test_a_run_keeps_its_trace_if_it_is_one(bench: Bench, carried: str | None, kept: str | None) -> None:
    """A traceparent of the W3C's form goes with the run to its work; anything else is nobody's trace."""
    await bench.runs(admitted(traceparent=carried))
    await bench.dispatch()
    (work,) = await bench.events("flux.work.dispatched.v1")

    assert (await bench.row("SELECT traceparent FROM flux.runs"))[0] == kept
    assert work.headers.get("traceparent") == kept


async def test_windows_wider_than_any_number_of_items_are_as_good_as_none(bench: Bench) -> None:
    """The contract allows windows that the database cannot hold."""
    await bench.runs(admitted(run_window=2**53 - 1, agency_window=2**53 - 1))

    assert await bench.rows("SELECT run_window, agency_window FROM flux.runs") == [(2**31 - 1, 2**31 - 1)]


async def test_the_runs_of_a_batch_are_locked_in_the_one_order(bench: Bench) -> None:
    """Commands that name runs in another order wait for the first lock with no other in hand: nobody waits in a ring."""
    await bench.runs(admitted("r-1"), admitted("r-2"))
    names = {str(run_id(AGENCY, name)): name for name in ("r-1", "r-2")}
    low, high = sorted(names)
    other = await asyncpg.connect(bench.admin_dsn)
    lock = "SELECT FROM flux.runs WHERE run_id = $1 FOR UPDATE NOWAIT"
    async with other.transaction():
        await other.execute(lock, low)
        applying = asyncio.create_task(
            bench.runs(command("cancel", "c-1", names[high]), command("cancel", "c-2", names[low]))
        )
        await waits(other)
        await other.execute(lock, high)
    await applying
    await other.close()

    assert [one["command_id"] for one in await bench.outbox(APPLIED)] == ["c-1", "c-2"]


async def waits(connection: Any) -> None:
    """Wait until somebody waits for a lock on rows."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with asyncio.timeout(10):
        while not await connection.fetchval(waiting):
            await connection.execute("SELECT pg_stat_clear_snapshot()")


async def test_a_pause_is_remembered_until_the_plan_is_there(bench: Bench) -> None:
    """pause in PLANNING: the plan is made, then the run stands; resume lets it go on to its end."""
    await bench.runs(admitted())
    await bench.dispatch()
    await bench.runs(command("pause", "c-1"), command("pause", "c-2"))
    (plan,) = await bench.work()
    await bench.reports(*answer(plan, [2, 2]))
    await bench.dispatch()
    paused = await bench.row("SELECT state FROM flux.runs")
    nothing = await bench.work()
    await bench.runs(command("resume", "c-3"))
    await to_the_end(bench, [2, 2])

    assert (paused[0], nothing) == ("PAUSED", [])
    assert [one["command_id"] for one in await bench.outbox(REFUSED)] == ["c-2"]
    assert len(await bench.outbox("flux.run.completed.v1")) == 1


async def test_retry_after_a_failed_plan_plans_again(bench: Bench) -> None:
    """No plan digest → PLANNING, with the plan item under a new term and attempts anew."""
    await bench.runs(admitted())
    await bench.dispatch()
    (plan,) = await bench.work()
    await bench.reports(
        report(plan, catalogue.FAILED, last_seq=0, code="SOURCE_MISSING", cause="input", transient=False)
    )
    await bench.dispatch()
    await bench.runs(command("retry", "c-1"))
    (applied,) = await bench.outbox(APPLIED)
    await to_the_end(bench, [2])
    (completed,) = await bench.outbox("flux.run.completed.v1")

    assert (applied["state"], completed["run_attempt"]) == ("PLANNING", 2)
    assert (await bench.row("SELECT term FROM flux.checkpoints WHERE kind = 'plan'"))[0] == 2


async def test_retry_after_a_failed_partition_goes_on_with_the_rest(bench: Bench) -> None:
    """Else RUNNING: what is finished is kept, what was in hand is fenced, and the old worker is not heard any more."""
    first, second, third = await planned(bench, [2, 2, 2])
    lost = report(second, catalogue.FAILED, last_seq=0, code="SOURCE_MISSING", cause="input", transient=False)
    await bench.reports(*whole(first), started(third), lost)
    await bench.dispatch()
    await bench.runs(command("retry", "c-1"))
    await bench.dispatch()
    await bench.reports(*whole(third))
    again = await bench.work()
    for work in again:
        await bench.reports(*answer(work, []))
    await to_the_end(bench, [])
    (applied,) = await bench.outbox(APPLIED)
    (completed,) = await bench.outbox("flux.run.completed.v1")

    assert applied["state"] == "RUNNING"
    assert [(work["number"], work["term"], work["run_attempt"], work["attempt"]) for work in again] == [
        (1, 2, 2, 0),
        (2, 3, 2, 0),
    ]
    assert (completed["run_attempt"], (await bench.ledger())[2]) == (2, 2)


async def test_retry_after_a_failed_finalize_finalizes_again(bench: Bench) -> None:
    """All partitions FINISHED → FINALIZING: nothing is extracted again, and the indexes are kept."""
    (work,) = await planned(bench, [2])
    await bench.reports(*whole(work))
    await bench.dispatch()
    (gather,) = await bench.work()
    await bench.reports(*answer(gather, []))
    await bench.dispatch()
    (finalize,) = await bench.work()
    await bench.reports(
        report(
            finalize, catalogue.FAILED, last_seq=0, code="STORE_UNAVAILABLE", cause="infrastructure", transient=False
        )
    )
    await bench.dispatch()
    await bench.runs(command("retry", "c-1"))
    await bench.dispatch()
    (again,) = await bench.work()
    await bench.reports(*answer(again, []))
    await bench.dispatch()
    (applied,) = await bench.outbox(APPLIED)

    assert applied["state"] == "FINALIZING"
    assert (again["kind"], again["term"], again["indexes"]) == ("finalize", 2, finalize["indexes"])
    assert [one["run_attempt"] for one in await bench.outbox("flux.run.completed.v1")] == [2]


async def test_retry_before_the_partitions_were_made_makes_them(bench: Bench) -> None:
    """A run that failed with its plan in hand and no partition yet goes on in RUNNING, with a deadline anew."""
    await bench.runs(admitted())
    await bench.dispatch()
    (plan,) = await bench.work()
    await bench.reports(*answer(plan, [2, 2]))
    await bench.execute("UPDATE flux.runs SET deadline = now()")
    await bench.dispatch()
    await bench.runs(command("retry", "c-1"))
    await to_the_end(bench, [])
    (failed,) = await bench.outbox("flux.run.failed.v1")
    (applied,) = await bench.outbox(APPLIED)

    assert (failed["cause"], failed["code"], applied["state"]) == ("policy", "RUN_TTL_EXCEEDED", "RUNNING")
    assert [one["run_attempt"] for one in await bench.outbox("flux.run.completed.v1")] == [2]


async def test_cancel_reaches_every_state(bench: Bench) -> None:
    """ADMITTED, PLANNING, RUNNING, PAUSED and FINALIZING lead to CANCELLED, with one fence and one terminal event each."""
    names = ["admitted", "planning", "running", "paused", "finalizing"]
    await bench.runs(*(admitted(name) for name in names[1:]))
    await bench.dispatch()
    plans = await bench.work()
    await bench.reports(*(one for plan in plans if plan["request_id"] != "planning" for one in answer(plan, [2])))
    await bench.dispatch()
    works = {work["request_id"]: work for work in await bench.work()}
    await bench.reports(*whole(works["finalizing"]), started(works["paused"]))
    await bench.runs(command("pause", "c-0", "paused"))
    await bench.dispatch()
    await bench.reports(*whole(works["paused"]))
    await bench.runs(admitted("admitted"))
    before = dict(await bench.rows("SELECT request_id, state FROM flux.runs"))
    await bench.runs(*(command("cancel", f"c-{name}", name) for name in names))
    await bench.dispatch()
    ended = await bench.outbox("flux.run.cancelled.v1")
    fences = [one for one in await bench.outbox("flux.work.fenced.v1") if "run_attempt_min" in one]

    assert before == {name: name.upper() for name in names}
    assert sorted(one["command_id"] for one in ended) == sorted(f"c-{name}" for name in names)
    assert len(fences) == len(names)
