"""Silence: workers that say nothing, or nothing that counts, and items that nobody takes."""

from __future__ import annotations

from datetime import timedelta

from flux_checkpoint.domain.dispatch import Patience
from flux_common.contracts import catalogue

from .conftest import Bench, planned
from .records import NOW, PLAN, a_slice, admitted, report, started

FAILED = "flux.run.failed.v1"


async def watermark(bench: Bench, after: timedelta) -> None:
    """Let the progress lane be read up to so long after NOW."""
    await bench.execute("UPDATE lanes SET watermark = $1 WHERE topic = $2", NOW + after, catalogue.PROGRESS.name)


async def test_a_started_item_stalls_by_the_lanes_watermark(bench: Bench) -> None:
    """Silence is what the lane has read and not heard: then a new term, an attempt, a fence, and the work goes out again."""
    (work,) = await planned(bench, [6])
    one, head = a_slice(work, 1, PLAN, 2, 2)
    await bench.reports(started(work), one)
    await bench.look()
    patient = await bench.work()
    await watermark(bench, timedelta(minutes=5, seconds=1))
    await bench.look()
    fences = await bench.outbox("flux.work.fenced.v1")
    (again,) = await bench.work()
    (fact,) = await bench.facts("item.recalled")

    assert patient == []
    assert (again["term"], again["attempt"], again["next_seq"], again["chain_head"]) == (2, 1, 2, head)
    assert [(fence["number"], fence["term_min"]) for fence in fences] == [(0, 2)]
    assert fact["refs"]["term"] == 2


async def test_whoever_says_alive_does_not_stall_but_owes_a_slice(bench: Bench) -> None:
    """`alive` breaks the silence; half an hour without a slice ends the patience with it."""
    (work,) = await planned(bench, [6])
    await bench.reports(started(work))
    bench.stamp = NOW + timedelta(minutes=29)
    await bench.reports(report(work, catalogue.ALIVE, counter=1))
    await bench.look()
    patient = await bench.work()
    bench.stamp = NOW + timedelta(minutes=30, seconds=1)
    await bench.reports(report(work, catalogue.ALIVE, counter=2))
    await bench.look()
    (again,) = await bench.work()

    assert patient == []
    assert (again["term"], again["attempt"]) == (2, 1)


async def test_time_in_the_queue_is_not_held_against_a_worker(bench: Bench) -> None:
    """An item that lay in the queue for hours is not taken back from the worker that has just begun it."""
    (work,) = await planned(bench, [6])
    await bench.execute(
        "UPDATE flux.checkpoints SET dispatched_at = $1 WHERE kind = 'extract'", NOW - timedelta(hours=9)
    )
    await bench.reports(started(work))
    await watermark(bench, timedelta(minutes=4))
    await bench.look()

    assert await bench.work() == []
    assert (await bench.row("SELECT attempt FROM flux.checkpoints WHERE kind = 'extract'"))[0] == 0


async def test_a_steps_silence_is_found_too(bench: Bench) -> None:
    """Steps stall like partitions, but owe no slices."""
    await bench.runs(admitted())
    await bench.dispatch()
    (plan,) = await bench.work()
    await bench.reports(started(plan))
    await watermark(bench, timedelta(minutes=6))
    await bench.look()
    (again,) = await bench.work()

    assert (again["kind"], again["term"], again["attempt"]) == ("plan", 2, 1)


async def test_five_stalls_fail_the_run_and_each_is_told_once(bench: Bench) -> None:
    """The last recall leaves the term as it is; its fact is still another one than the recall's before."""
    (work,) = await planned(bench, [6])
    for n in range(1, 6):
        bench.stamp = NOW + timedelta(hours=n)
        await bench.reports(started(work))
        await watermark(bench, timedelta(hours=n, minutes=6))
        await bench.look()
        (work,) = await bench.work() or [work]
    facts = await bench.facts("item.recalled")
    (failed,) = await bench.outbox(FAILED)

    assert [fact["refs"]["term"] for fact in facts] == [2, 3, 4, 5, 5]
    assert (failed["cause"], failed["code"]) == ("infrastructure", "STALLED")


async def test_an_item_that_lay_in_the_queue_too_long_goes_out_again_without_an_attempt(bench: Bench) -> None:
    """queued_max: the work topic may have forgotten it by now; nobody failed."""
    (work,) = await planned(bench, [6])
    bench.patience = Patience(queued_max=timedelta(0))
    await bench.look()
    bench.patience = Patience()
    await bench.look()
    again = (await bench.work())[-1]

    assert again["term"] > work["term"]
    assert again["attempt"] == 0
    assert (await bench.row("SELECT failure_code FROM flux.checkpoints WHERE kind = 'extract'"))[0] == "QUEUED_TOO_LONG"
