"""A run's life in checkpoint alone: real PostgreSQL, records as the lanes would hand them over, no Kafka."""

from __future__ import annotations

from uuid import UUID

import pytest

from flux_common.contracts import catalogue
from flux_common.kernel.errors import Fenced
from flux_common.kernel.positions import TopicPartition

from .conftest import Bench, planned
from .records import AGENCY, PLAN, RUN, a_slice, admitted, command, report

MANIFEST = f"file:///b/{RUN}/manifest-{'22' * 32}.json"


async def test_a_run_goes_from_admission_to_completion(bench: Bench) -> None:
    """Every hop that checkpoint owns, with the counts and digests that the completion is proof of."""
    extracts = await planned(bench, [6, 4])
    assert [(w["kind"], w["number"], w["range"]) for w in extracts] == [
        ("extract", 0, {"first": 0, "count": 6}),
        ("extract", 1, {"first": 6, "count": 4}),
    ]
    heads = []
    for work in extracts:
        count = work["range"]["count"]
        one, head = a_slice(work, 1, PLAN, 2, 2)
        two, last = a_slice(work, 2, head, count, count - 2)
        done = report(work, catalogue.FINISHED, last_seq=2, head=last)
        await bench.reports(one, two, two, done, done)
        heads.append(last)
    await bench.dispatch()
    (gather,) = await bench.work()
    assert [head["head"] for head in gather["heads"]] == heads
    await bench.reports(report(gather, catalogue.FINISHED, last_seq=0, result_digest="11" * 32))
    await bench.dispatch()
    (finalize,) = await bench.work()
    assert finalize["indexes"] == [{"number": 0, "index_digest": "11" * 32}]
    await bench.feed(
        catalogue.PROGRESS.name,
        [
            report(
                finalize, catalogue.FINISHED, last_seq=0, result_digest="22" * 32,
                manifest_uri=MANIFEST,
                files=3, rows=8,
            )
        ],
    )  # fmt: skip
    await bench.dispatch()
    (completed,) = await bench.outbox("flux.run.completed.v1")

    assert completed["counts"] == {"read": 10, "written": 6, "rejected": 4, "bytes_in": 40, "bytes_out": 20}
    assert completed["rejects_by_code"] == {"OBJECT_CORRUPT": 4}
    assert completed["manifest"] == {"uri": MANIFEST, "sha256": "22" * 32, "files": 3, "rows": 8}
    run = await bench.row("SELECT state, read, terminal_attempt FROM flux.runs")
    assert tuple(run) == ("COMPLETED", 10, 1)
    faults = await bench.row(
        "SELECT count(*) FROM flux.verify_chain($1, $2) WHERE fault IS NOT NULL", AGENCY, UUID(RUN)
    )
    assert faults[0] == 0
    ledger = await bench.row("SELECT sum(effects), sum(duplicates), sum(fenced), sum(dead_letters) FROM ledger")
    assert tuple(ledger) == (11, 4, 0, 0)


async def test_a_broken_chain_is_put_aside_and_resumed_from_the_stored_head(bench: Bench) -> None:
    """Question 8 on the rows: dead letter, fence, term and attempt raised, and work dispatched from the head."""
    (work,) = await planned(bench, [6])
    one, head = a_slice(work, 1, PLAN, 2, 2)
    gap, _ = a_slice(work, 3, head, 6, 2)
    await bench.reports(one, gap)
    fences = await bench.outbox("flux.work.fenced.v1")
    await bench.dispatch()
    (again,) = await bench.work()

    assert (again["term"], again["next_seq"], again["cursor"], again["chain_head"]) == (2, 2, 2, head)
    assert [(fence["kind"], fence["term_min"]) for fence in fences] == [("extract", 2)]
    letters = await bench.row("SELECT count(*), min(code) FROM dead_letters")
    assert tuple(letters) == (1, "CHAIN_BROKEN")


async def test_a_record_that_contradicts_its_headers_fails_its_run(bench: Bench) -> None:
    """RunBroken: the worker that writes such a record is not believed any more."""
    (work,) = await planned(bench, [6])
    (headers, value), _ = a_slice(work, 1, PLAN, 2, 2)
    forged = [(n, b"9" if n == "ce_fluxseq" else v) for n, v in headers]
    await bench.reports((forged, value))
    await bench.dispatch()
    (failed,) = await bench.outbox("flux.run.failed.v1")

    assert (failed["cause"], failed["code"]) == ("transform", "RECORD_INVALID")


async def test_a_failed_run_can_be_retried_and_keeps_what_is_finished(bench: Bench) -> None:
    """retry: attempt 2, the finished partition stays, the failed one starts with attempts anew."""
    first, second = await planned(bench, [2, 2])
    done, head = a_slice(first, 1, PLAN, 2, 2)
    lost = report(second, catalogue.FAILED, last_seq=0, code="SOURCE_MISSING", cause="input", transient=False)
    await bench.reports(done, report(first, catalogue.FINISHED, last_seq=1, head=head), lost)
    await bench.dispatch()
    (failed,) = await bench.outbox("flux.run.failed.v1")
    await bench.runs(command("retry", "c-1"), command("retry", "c-2"))
    applied = await bench.outbox("flux.run.command-applied.v1")
    refused = await bench.outbox("flux.run.command-refused.v1")
    await bench.dispatch()
    (again,) = await bench.work()

    assert (failed["run_attempt"], failed["code"]) == (1, "SOURCE_MISSING")
    assert ([c["command_id"] for c in applied], [c["code"] for c in refused]) == (["c-1"], ["RUN_STATE"])
    assert (again["number"], again["run_attempt"], again["term"], again["attempt"]) == (1, 2, 2, 0)


async def test_pause_recalls_what_nobody_started_and_resume_sends_it_out_again(bench: Bench) -> None:
    """A paused run keeps its started items and nothing else in hand."""
    started, queued = await planned(bench, [2, 2])
    await bench.reports(report(started, catalogue.STARTED, transform_version="v1"))
    await bench.runs(command("pause", "c-1"))
    await bench.dispatch()
    states = await bench.row("SELECT array_agg(state ORDER BY number) FROM flux.checkpoints WHERE kind = 'extract'")
    nothing = await bench.work()
    await bench.runs(command("resume", "c-2"))
    await bench.dispatch()
    (again,) = await bench.work()

    assert (states[0], nothing) == (["RUNNING", "PENDING"], [])
    assert (again["number"], again["term"]) == (queued["number"], 2)


async def test_cancel_waits_for_the_started_item_and_ends_once(bench: Bench) -> None:
    """CANCELLING fences the run; the dropped item's answer lets it end; later reports are fenced."""
    (work,) = await planned(bench, [2])
    await bench.reports(report(work, catalogue.STARTED, transform_version="v1"))
    await bench.runs(command("cancel", "c-1"))
    await bench.dispatch()
    early = await bench.outbox("flux.run.cancelled.v1")
    dropped = report(work, catalogue.FAILED, last_seq=0, code="DROPPED", cause="policy", transient=True)
    await bench.reports(dropped)
    await bench.dispatch()
    ended = await bench.outbox("flux.run.cancelled.v1")
    await bench.reports(dropped)

    assert (early, [event["command_id"] for event in ended]) == ([], ["c-1"])
    fenced = await bench.row("SELECT sum(fenced) FROM ledger")
    assert fenced[0] == 1


async def test_a_stale_owner_changes_nothing(bench: Bench) -> None:
    """I2: after somebody else took the lane, an Advance under the old epoch raises and leaves no trace."""
    await bench.runs(admitted())
    await bench.lanes.take(TopicPartition(catalogue.RUNS.name, 0), topic_id="id", log_start=0, log_end=9)
    before = await bench.row("SELECT count(*) FROM outbox")

    with pytest.raises(Fenced):
        await bench.runs(command("cancel", "c-9"))
    after = await bench.row("SELECT count(*) FROM outbox")
    assert before == after
