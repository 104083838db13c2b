"""Work items: everything a worker needs, under the term that is in the database, with the run's trace."""

from __future__ import annotations

from flux_common.contracts import catalogue
from flux_common.contracts.work import WorkDispatched
from flux_common.kernel.ids import dispatch_id

from .conftest import Bench, planned, to_the_end
from .records import PLAN, RUN, a_slice, admitted, answer, planned_report, report, started

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
WISHES = {
    "source": {"uri": "file:///a/", "include": ["*.txt"], "exclude": ["b*"]},
    "destination": {"uri": "file:///b/"},
    "content_type": "mixed",
    "use_case": "preservation",
    "partitioning": {"objects_max": 7, "bytes_max": 9},
    "on_reject": {"policy": "fail", "ratio_max": 0.25},
    "options": {"ocr": True, "dpi": 300, "lang": "de"},
    "labels": {"project": "äöü 🌍"},
}


async def test_a_job_is_the_request_as_it_was_admitted(bench: Bench) -> None:
    """Every wish comes back out of the database as it went in: types, order and characters."""
    await bench.runs(admitted(**WISHES))
    await bench.dispatch()
    (work,) = await bench.work()

    assert work["job"] == WISHES
    assert WorkDispatched.model_validate(work).job.options == WISHES["options"]


async def test_an_item_is_named_by_run_kind_number_and_term(bench: Bench) -> None:
    """Key, subject, id and trace are derived, so that the same dispatch is always the same event."""
    await bench.runs(admitted(traceparent=TRACE))
    await bench.dispatch()
    (event,) = await bench.events(catalogue.WORK_DISPATCHED.ce_type)

    assert (event.topic, event.key) == ("flux-internal.work.v1", f"{RUN}/plan/0/1")
    assert event.headers["ce_subject"] == f"{RUN}/plan/0"
    assert event.headers["traceparent"] == TRACE
    assert event.headers["ce_id"] == str(dispatch_id(event.type, RUN, 1, "plan", 0, 1))


async def test_a_plan_item_names_nothing_but_the_job(bench: Bench) -> None:
    """Nothing is known yet: no version, no digest, no range."""
    await bench.runs(admitted())
    await bench.dispatch()
    (work,) = await bench.work()

    assert {name for name in work if name in WorkDispatched.model_fields} == {
        *("agency_id", "run_id", "request_id", "run_attempt", "kind", "number", "term", "attempt", "job"),
        *("next_seq", "cursor", "heads", "indexes"),
    }


async def test_an_extract_item_says_where_to_go_on(bench: Bench) -> None:
    """At seq 1 the chain head is the plan digest; later the last slice's, with the cursor behind it."""
    (first,) = await planned(bench, [6])
    one, head = a_slice(first, 1, PLAN, 4, 4)
    again = report(first, catalogue.FAILED, last_seq=1, code="SOURCE_UNAVAILABLE", cause="input", transient=True)
    await bench.reports(one, again)
    await bench.dispatch()
    (then,) = await bench.work()

    assert (first["next_seq"], first["cursor"], first["chain_head"], first["plan_digest"]) == (1, 0, PLAN, PLAN)
    assert (then["next_seq"], then["cursor"], then["chain_head"], then["plan_digest"]) == (2, 4, head, PLAN)
    assert (then["range"], then["attempt"], then["term"]) == ({"first": 0, "count": 6}, 1, 2)
    assert then["transform_version"] == "v1"


async def test_gather_and_finalize_name_what_they_stand_on(bench: Bench) -> None:
    """The heads of finished partitions with the number of their slices; then the indexes."""
    works = await planned(bench, [2, 3])
    await bench.reports(*(one for work in works for one in answer(work, [])))
    await bench.dispatch()
    (gather,) = await bench.work()
    await bench.reports(*answer(gather, []))
    await bench.dispatch()
    (finalize,) = await bench.work()
    rows = await bench.rows(
        "SELECT number, last_seq, chain_head FROM flux.checkpoints WHERE kind = 'extract' ORDER BY 1"
    )

    assert gather["heads"] == [{"number": n, "last_seq": seq, "head": head.hex()} for n, seq, head in rows]
    assert finalize["indexes"] == [{"number": 0, "index_digest": "11" * 32}]
    assert gather["term"] == finalize["term"] == 1


async def test_failures_that_say_nothing_of_the_item_cost_no_attempt(bench: Bench) -> None:
    """VERSION_MISMATCH and WORK_UNREADABLE: a new term for another worker, as often as it takes."""
    await bench.runs(admitted())
    await bench.dispatch()
    for turn in range(12):
        (plan,) = await bench.work()
        code = "VERSION_MISMATCH" if turn % 2 else "WORK_UNREADABLE"
        await bench.reports(
            started(plan), report(plan, catalogue.FAILED, last_seq=0, code=code, cause="infrastructure", transient=True)
        )
        await bench.dispatch()
    (plan,) = await bench.work()
    await bench.reports(planned_report(plan, [1]))
    await to_the_end(bench, [])

    assert (plan["term"], plan["attempt"]) == (13, 0)
    assert len(await bench.outbox("flux.run.completed.v1")) == 1
