"""The progress lane on a real PostgreSQL: every verdict's traces, and that no record stops those beside it."""

from __future__ import annotations

from uuid import UUID

import pytest

from flux_common.contracts import catalogue
from flux_common.kernel.ids import run_id
from flux_common.observability import metrics

from .conftest import Bench, planned, to_the_end
from .records import (
    AGENCY,
    NOW,
    PLAN,
    RUN,
    Written,
    a_slice,
    admitted,
    answer,
    planned_report,
    report,
    started,
    whole,
)

SYSTEM = "_system"


def forged(one: Written, **headers: str) -> Written:
    """Return a record with other headers."""
    return [(name, headers[name].encode() if name in headers else value) for name, value in one[0]], one[1]


def of_another(one: Written, old: str, new: str) -> Written:
    """Return a record that says something else in its value and headers."""
    value = one[1] or b""
    return (
        [(name, text.replace(old.encode(), new.encode())) for name, text in one[0]],
        value.replace(old.encode(), new.encode()),
    )


async def test_an_unreadable_report_is_put_aside_and_its_neighbours_are_applied(bench: Bench) -> None:
    """A dead letter and a fact under `_system`, since nobody knows whose it was; the batch goes on."""
    (work,) = await planned(bench, [6])
    one, _ = a_slice(work, 1, PLAN, 2, 2)
    await bench.reports(([("ce_id", b"1")], b"no event"), started(work), ([], None), one)
    facts = await bench.facts("record.dead-lettered")

    assert await bench.letters() == [(SYSTEM, "HEADER_INVALID"), (SYSTEM, "HEADER_INVALID")]
    assert [(fact["agency_id"], fact["outcome"], fact["code"]) for fact in facts] == [
        (SYSTEM, "refused", "HEADER_INVALID")
    ] * 2
    assert [fact["src"]["offset"] for fact in facts] == [2, 4]
    assert tuple(await bench.row("SELECT last_seq, state FROM flux.checkpoints WHERE kind = 'extract'")) == (
        1,
        "RUNNING",
    )
    assert await bench.events("flux.record.dead-lettered.v1") == []


async def test_a_record_that_contradicts_itself_fails_its_run_and_is_told_to_its_agency(bench: Bench) -> None:
    """RunBroken: dead letter, fact and event of the agency; what came before it in the batch stands."""
    (work,) = await planned(bench, [6])
    one, head = a_slice(work, 1, PLAN, 2, 2)
    two, _ = a_slice(work, 2, head, 4, 2)
    await bench.reports(one, forged(two, ce_fluxterm="9" * 5000))
    await bench.dispatch()
    (told,) = await bench.events("flux.record.dead-lettered.v1")
    (failed,) = await bench.outbox("flux.run.failed.v1")

    assert (told.topic, told.body["code"], told.body["position"]["offset"]) == (
        "flux.nasa.dead-letters.v1",
        "RECORD_INVALID",
        3,
    )
    assert (failed["cause"], failed["code"], failed["counts"]["read"]) == ("transform", "RECORD_INVALID", 2)
    assert await bench.letters() == [(AGENCY, "RECORD_INVALID")]


async def test_a_broken_record_of_no_run_of_ours_touches_no_agency(bench: Bench) -> None:
    """The agency in a record is the worker's word: for a run that is not there nothing is written in its name."""
    (work,) = await planned(bench, [6])
    stranger = str(run_id("esa", "nothing"))
    one, _ = a_slice(work | {"agency_id": "esa", "run_id": stranger}, 1, PLAN, 2, 2)
    await bench.reports(forged(one, ce_fluxseq="7"))
    await bench.drain()

    assert await bench.letters() == [(SYSTEM, "RECORD_INVALID")]
    assert [told for told in bench.told if told.agency_id == "esa"] == []
    assert (await bench.row("SELECT count(*) FROM flux.runs WHERE broken_code IS NOT NULL"))[0] == 0


async def test_a_report_in_another_agencys_name_is_fenced_and_changes_nothing(bench: Bench) -> None:
    """The same run id under another agency is another run, and it is not there."""
    (work,) = await planned(bench, [6])
    for one in whole(work):
        await bench.reports(of_another(one, "nasa", "esa"))
    facts = await bench.facts("report.fenced")

    assert (await bench.ledger())[2] == 2
    assert [(fact["agency_id"], fact["refs"]) for fact in facts] == [(SYSTEM, {"count": 1})] * 2
    assert (await bench.row("SELECT state FROM flux.checkpoints WHERE kind = 'extract'"))[0] == "DISPATCHED"
    assert [told for told in bench.told if told.agency_id == "esa"] == []


async def test_reports_of_an_older_term_are_fenced_and_counted_in_one_fact(bench: Bench) -> None:
    """Three words of a predecessor: three fenced records, one fact that counts them."""
    (work,) = await planned(bench, [6])
    gap, _ = a_slice(work, 3, PLAN, 6, 2)
    await bench.reports(gap)
    one, _ = a_slice(work, 1, PLAN, 2, 2)
    await bench.reports(one, started(work), started(work))
    (fact,) = await bench.facts("report.fenced")

    assert (fact["agency_id"], fact["refs"], fact["outcome"]) == (AGENCY, {"run_id": RUN, "count": 3}, "refused")
    assert (await bench.ledger())[2:] == (3, 1)


@pytest.mark.parametrize("again", [1, 2], ids=["behind the head", "at the head"])
async def test_another_digest_for_an_applied_slice_is_counted_and_the_applied_one_stands(
    bench: Bench, again: int
) -> None:
    """Two workers that disagree: whoever was first is believed, and somebody is told."""
    (work,) = await planned(bench, [6])
    one, head = a_slice(work, 1, PLAN, 2, 2)
    two, last = a_slice(work, 2, head, 4, 2)
    await bench.reports(one, two)
    counted = metrics.digest_conflicts._value.get()
    other, _ = a_slice(work, again, [PLAN, head][again - 1], 2 * again, 2, bytes_out=6)
    await bench.reports(one, two, other)

    assert metrics.digest_conflicts._value.get() == counted + 1
    assert (await bench.ledger())[1] == 3
    assert (await bench.row("SELECT chain_head FROM flux.checkpoints WHERE kind = 'extract'"))[0].hex() == last


async def test_another_digest_inside_one_batch_is_counted(bench: Bench) -> None:
    """A slice that this batch itself applied is compared, too."""
    (work,) = await planned(bench, [6])
    one, head = a_slice(work, 1, PLAN, 2, 2)
    two, _ = a_slice(work, 2, head, 4, 2)
    other, _ = a_slice(work, 1, PLAN, 2, 2, bytes_out=6)
    counted = metrics.digest_conflicts._value.get()
    await bench.reports(one, two, other)

    assert metrics.digest_conflicts._value.get() == counted + 1


async def test_numbers_beyond_the_databases_stop_nothing(bench: Bench) -> None:
    """Item numbers, terms and seqs larger than any that was given: dead letters, and the rest is applied."""
    (work,) = await planned(bench, [6])
    await bench.reports(
        started(work),
        started(work | {"number": 2**31}),
        started(work | {"term": 2**31}),
        a_slice(work, 2**31, PLAN, 2, 2)[0],
        a_slice(work | {"number": 2**53 - 1}, 1, PLAN, 2, 2)[0],
        forged(a_slice(work, 1, PLAN, 2, 2)[0], ce_fluxterm="9999999999"),
        a_slice(work, 1, PLAN, 2, 2)[0],
    )

    assert await bench.letters() == [(SYSTEM, "SCHEMA_VIOLATION")] * 4 + [(AGENCY, "TERM_UNKNOWN")]
    assert (await bench.row("SELECT last_seq FROM flux.checkpoints WHERE kind = 'extract'"))[0] == 1


async def test_a_plan_with_partitions_beyond_the_databases_stops_nothing(bench: Bench) -> None:
    """The cut of a plan is kept as integers; a larger partition than those can hold is no plan."""
    await bench.runs(admitted())
    await bench.dispatch()
    (plan,) = await bench.work()
    await bench.reports(planned_report(plan, [2**31, 1]), planned_report(plan, [2, 2], objects=5))

    assert await bench.letters() == [(SYSTEM, "SCHEMA_VIOLATION"), (SYSTEM, "COUNTS_MISMATCH")]
    assert (await bench.row("SELECT plan_digest FROM flux.runs"))[0] is None


async def test_what_the_database_refuses_is_put_aside_alone(bench: Bench) -> None:
    """A text that PostgreSQL cannot hold: the loop halves the batch, and `refuse` buries the one record."""
    await bench.runs(admitted())
    await bench.dispatch()
    (plan,) = await bench.work()
    await bench.reports(
        started(plan), planned_report(plan, [2], transform_version="a\0b"), planned_report(plan, [2, 2])
    )
    row = await bench.row("SELECT transform_version, partitions FROM flux.runs")

    assert await bench.letters() == [(AGENCY, "RECORD_REFUSED")]
    assert tuple(row) == ("v1", 2)
    assert (await bench.ledger())[3] == 1


async def test_the_first_of_two_plans_stands(bench: Bench) -> None:
    """Two workers planned under one term: the first applied wins, whatever the second found."""
    await bench.runs(admitted())
    await bench.dispatch()
    (plan,) = await bench.work()
    await bench.reports(planned_report(plan, [2, 3]), planned_report(plan, [4], plan_digest="ff" * 32))
    row = await bench.row("SELECT plan_digest, objects, partition_objects FROM flux.runs")

    assert (row["plan_digest"].hex(), row["objects"], row["partition_objects"]) == (PLAN, 5, [2, 3])
    assert (await bench.ledger())[1] == 1


async def test_a_chain_that_is_longer_than_its_item_says_fails_its_run_alone(bench: Bench) -> None:
    """A link that nobody applied is in the table: the record is put aside, its run fails, the other run goes on."""
    (work,) = await planned(bench, [2])
    (other,) = await planned(bench, [2], "r-2")
    await bench.tamper(
        "INSERT INTO flux.checkpoint_hashes (agency_id, run_id, number, seq, prev, hash, kafka_partition, kafka_offset)"
        " VALUES ($1, $2, 0, 1, $3, $3, 0, 999)",
        AGENCY,
        UUID(RUN),
        b"x" * 32,
    )
    await bench.reports(*whole(work), *whole(other))
    await to_the_end(bench, [2])
    (failed,) = await bench.outbox("flux.run.failed.v1")
    (completed,) = await bench.outbox("flux.run.completed.v1")

    assert (failed["run_id"], failed["cause"], failed["code"]) == (RUN, "infrastructure", "CHAIN_CORRUPT")
    assert completed["request_id"] == "r-2"
    assert (AGENCY, "CHAIN_CORRUPT") in await bench.letters()


async def test_bytes_that_no_event_could_say_fail_their_run_alone(bench: Bench) -> None:
    """Two partitions of 2^53 - 1 bytes each: no completion could name the sum, and nothing else stops."""
    works = await planned(bench, [1, 1])
    huge = [a_slice(work, 1, PLAN, 1, 1, rejected=0, bytes_in=2**53 - 1, bytes_out=0)[0] for work in works]
    await bench.reports(*huge)
    await bench.look()
    (failed,) = await bench.outbox("flux.run.failed.v1")

    assert (failed["code"], failed["counts"]["bytes_in"]) == ("COUNTS_MISMATCH", 2**53 - 1)
    assert (await bench.ledger())[3] == 0


async def test_an_item_that_contradicts_its_chain_five_times_fails_its_run(bench: Bench) -> None:
    """Question 8 to its end: each time a new term and a fence, at the fifth the run fails, cause transform."""
    (work,) = await planned(bench, [6])
    terms = []
    for _ in range(5):
        terms.append(work["term"])
        gap, _ = a_slice(work, 2, PLAN, 2, 2)
        await bench.reports(gap)
        await bench.dispatch()
        (work,) = await bench.work() or [work]
    fences = [told.body for told in await bench.events("flux.work.fenced.v1")]
    (failed,) = await bench.outbox("flux.run.failed.v1")

    assert terms == [1, 2, 3, 4, 5]
    assert [fence.get("term_min") for fence in fences] == [2, 3, 4, 5, None]
    assert (failed["cause"], failed["code"]) == ("transform", "CHAIN_BROKEN")


async def test_what_was_applied_can_be_explained_by_its_position(bench: Bench) -> None:
    """Each effect but `started` and `alive` has its line under its position; slices keep their bytes."""
    (work,) = await planned(bench, [2])
    await bench.reports(started(work), *whole(work), report(work, catalogue.ALIVE, counter=1))
    rows = await bench.rows(
        "SELECT p.kafka_offset, e.type, e.seq FROM generate_series(2, 5) AS p (kafka_offset)"
        " CROSS JOIN LATERAL flux.explain_position('nasa', 'progress', 0, p.kafka_offset) e ORDER BY 1"
    )

    assert rows == [
        (2, "flux.progress.started.v1", None),
        (3, "flux.progress.sliced.v1", 1),
        (4, "flux.progress.finished.v1", None),
    ]
    kept = await bench.row("SELECT body FROM flux.checkpoint_events WHERE seq = 1")
    assert kept[0] == whole(work)[0][1]


async def test_facts_are_told_of_what_ended_an_item(bench: Bench) -> None:
    """planned, finished and failed are facts with their item, term, code and position; slices are not."""
    first, second = await planned(bench, [2, 2])
    lost = report(second, catalogue.FAILED, last_seq=0, code="SOURCE_MISSING", cause="input", transient=False)
    await bench.reports(*whole(first), lost)
    (finished,) = await bench.facts("item.finished")
    (failed,) = await bench.facts("item.failed")

    assert finished["refs"] == {"run_id": RUN, "kind": "extract", "number": 0, "term": 1}
    assert (failed["outcome"], failed["code"], failed["refs"]["number"]) == ("failed", "SOURCE_MISSING", 1)
    assert (failed["src"]["topic"], failed["src"]["offset"]) == (catalogue.PROGRESS.name, 4)
    assert failed["ts"] > NOW.isoformat()
    assert len(await bench.facts("item.planned")) == 1


async def test_a_completion_names_no_file_that_a_worker_chose(bench: Bench) -> None:
    """A taken-over worker ends a run with a manifest elsewhere: put aside; the next worker's word is the result."""
    (work,) = await planned(bench, [2])
    while work["kind"] != "finalize":
        await bench.reports(*answer(work, [2]))
        await bench.dispatch()
        (work,) = await bench.work()
    uri = f"s3://elsewhere/{RUN}/manifest-{'22' * 32}.json"
    await bench.reports(report(work, catalogue.FINISHED, last_seq=0, result_digest="22" * 32, manifest_uri=uri))
    await bench.execute("UPDATE flux.checkpoints SET not_before = now()")
    await to_the_end(bench, [2])
    (completed,) = await bench.outbox("flux.run.completed.v1")

    assert await bench.letters() == [(AGENCY, "CHAIN_BROKEN")]
    assert completed["manifest"]["uri"] == f"file:///b/{RUN}/manifest-{'22' * 32}.json"
