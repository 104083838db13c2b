"""The worker's table, row by row, over real handlers and files: what it answers, gives up, drops and commits."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from flux_common.kernel.codes import Code

from .conftest import OTHER, TP, Bench


async def test_an_answered_item_is_committed_after_its_last_report(bench: Bench) -> None:
    """While the report is not acknowledged nothing is committed."""
    let_go = bench.reports.hold("planned")
    bench.deliver(bench.plan("r"), 7)
    await bench.waits("planned")
    before = bench.committed()
    let_go.set()
    await bench.settle()

    assert before is None
    assert bench.reports.told == [("started", "r"), ("planned", "r")]
    assert bench.committed() == 8


async def test_an_item_in_hand_that_comes_again_is_worked_once(bench: Bench) -> None:
    """After a rebalance, and as a twin in the log: every place is answered by the one end."""
    let_go = bench.reports.hold("planned")
    bench.deliver(bench.plan("r"), 0)
    await bench.waits("planned")
    bench.worker.assigned(frozenset({TP}))
    bench.deliver(bench.plan("r"), 0)
    bench.deliver(bench.plan("r"), 1)
    let_go.set()
    await bench.settle()

    assert bench.reports.count("planned") == 1
    assert bench.committed() == 2


async def test_an_item_in_hand_that_ends_before_it_comes_again_is_answered_then(bench: Bench) -> None:
    """Its old place means nothing after a rebalance; the new one is answered at once."""
    let_go = bench.reports.hold("planned")
    bench.deliver(bench.plan("r"), 0)
    await bench.waits("planned")
    bench.worker.assigned(frozenset({TP}))
    let_go.set()
    await bench.settle()
    before = bench.committed()
    bench.deliver(bench.plan("r"), 0)
    await bench.settle()

    assert before is None
    assert bench.committed() == 1
    assert bench.reports.count("started") == 1


async def test_a_finished_item_that_comes_again_is_answered_at_once(bench: Bench) -> None:
    """Its commit may have been lost; the work is not done again, but a later term is another item."""
    bench.deliver(bench.plan("r"), 0)
    await bench.settle()
    bench.worker.assigned(frozenset({TP}))
    bench.deliver(bench.plan("r"), 0)
    bench.deliver(bench.plan("r", term=2), 1)
    await bench.settle()

    assert bench.committed() == 2
    assert bench.reports.count("planned") == 2


async def test_an_item_given_to_others_is_dropped_before_its_next_slice(bench: Bench) -> None:
    """One slice was under way: it is acknowledged, the drop is said with its seq, nothing is committed or kept."""
    item = await bench.extract("r")
    let_go = bench.reports.hold("sliced")
    bench.deliver(item, 0)
    await bench.waits("sliced")
    bench.worker.assigned(frozenset({OTHER}))
    let_go.set()
    await bench.settle()

    assert [verb for verb, _ in bench.reports.told] == ["started", "sliced", "failed"]
    assert [(failure.code, failure.last_seq) for failure in bench.reports.failures] == [(Code.DROPPED, 1)]
    assert bench.committed() is None
    assert (bench.in_hand(), bench.drops.lost) == (0, set())


async def test_an_item_that_was_given_to_others_and_comes_back_is_worked(bench: Bench) -> None:
    """Dropped is not finished: if whoever had it died, nobody else would do it."""
    item = await bench.extract("r")
    let_go = bench.reports.hold("sliced")
    bench.deliver(item, 0)
    await bench.waits("sliced")
    bench.worker.assigned(frozenset())
    let_go.set()
    await bench.settle()
    bench.worker.assigned(frozenset({TP}))
    bench.deliver(item, 0)
    await bench.settle()

    assert bench.reports.count("finished") == 1
    assert bench.committed() == 1


async def test_an_item_that_comes_back_while_its_drop_is_being_said_is_worked(bench: Bench) -> None:
    """The place that came meanwhile is answered by real work, not by the drop."""
    item = await bench.extract("r")
    slice_end, drop = bench.reports.hold("sliced"), bench.reports.hold("failed")
    bench.deliver(item, 0)
    await bench.waits("sliced")
    bench.worker.assigned(frozenset())
    slice_end.set()
    await bench.waits("failed")
    bench.worker.assigned(frozenset({TP}))
    bench.deliver(item, 0)
    drop.set()
    await bench.settle()

    assert [verb for verb, _ in bench.reports.told if verb != "sliced"] == ["started", "failed", "started", "finished"]
    assert bench.committed() == 1


async def test_an_item_that_waits_and_is_given_to_others_is_let_go_without_a_word(bench: Bench) -> None:
    """It was never begun."""
    let_go = bench.reports.hold("planned")
    for n in range(4):
        bench.deliver(bench.plan(f"r{n}"), n)
    await bench.waits("planned")
    bench.worker.assigned(frozenset())
    let_go.set()
    await bench.settle()

    assert {name for _, name in bench.reports.told} == {"r0", "r1"}
    assert bench.in_hand() == 0


async def test_a_fenced_item_is_answered_without_being_begun(bench: Bench) -> None:
    """The drop is said, the offset committed; the term of the fence itself is worked."""
    item = bench.plan("r")
    bench.fence(item, 2)
    bench.deliver(item, 0)
    bench.deliver(replace(item, term=2), 1)
    await bench.settle()

    assert bench.reports.told[0] == ("failed", "r")
    assert [failure.code for failure in bench.reports.failures] == [Code.DROPPED]
    assert bench.reports.count("planned") == 1
    assert bench.committed() == 2


async def test_an_item_fenced_while_it_is_worked_is_dropped_before_its_next_slice(bench: Bench) -> None:
    """Then it is answered: nobody is to do it under this term, so it is not worked when it comes again."""
    item = await bench.extract("r")
    let_go = bench.reports.hold("sliced")
    bench.deliver(item, 0)
    await bench.waits("sliced")
    bench.fence(item, 2)
    let_go.set()
    await bench.settle()
    bench.worker.assigned(frozenset({TP}))
    bench.deliver(item, 0)
    await bench.settle()

    assert [verb for verb, _ in bench.reports.told] == ["started", "sliced", "failed"]
    assert bench.committed() == 1


async def test_only_a_contiguous_prefix_is_committed(bench: Bench) -> None:
    """A slow item holds the commit back; when it ends, all behind it is committed at once."""
    item = await bench.extract("slow")
    let_go = bench.reports.hold("sliced")
    bench.deliver(item, 0)
    await bench.waits("sliced")
    for n in (1, 2, 5):
        bench.deliver(bench.plan(f"r{n}", job=replace(bench.job, source_uri="file:///etc/")), n)
    await bench.until(lambda: len(bench.reports.failures) == 3)
    before = bench.committed()
    let_go.set()
    await bench.settle()

    assert before is None
    assert bench.committed() == 6


async def test_there_is_room_for_two_items_a_place_beyond_the_first_unfinished(bench: Bench) -> None:
    """Two are worked, two wait; finished ones behind an unfinished one take room, for they may come again."""
    let_go = bench.reports.hold("planned")
    rooms = [bench.worker.room()]
    for n in range(4):
        bench.deliver(bench.plan(f"r{n}"), n)
        rooms.append(bench.worker.room())
    await bench.waits("planned")
    await asyncio.sleep(0.05)
    begun = bench.reports.count("started")
    let_go.set()
    await bench.settle()

    assert rooms == [4, 3, 2, 1, 0]
    assert begun == 2
    assert bench.reports.count("planned") == 4
    assert bench.worker.room() == 4


async def test_there_is_no_room_before_the_fences_are_known_nor_while_stopping(bench: Bench) -> None:
    """An item could be fenced already; and who leaves takes nothing more."""
    bench.fences.ready.clear()
    unknown = bench.worker.room()
    bench.fences.ready.set()
    known = bench.worker.room()
    bench.drops.stopping = True

    assert (unknown, known, bench.worker.room()) == (0, 4, 0)


async def test_what_is_not_assigned_or_out_of_order_is_never_taken_silently(bench: Bench) -> None:
    """To skip it could lose an item; so it raises, the consumer ends, and a new process begins at the committed offset."""
    bench.deliver(bench.plan("r"), 5)

    with pytest.raises(ValueError, match="does not follow"):
        bench.deliver(bench.plan("older"), 4)
    with pytest.raises(KeyError):
        bench.deliver(bench.plan("foreign"), 0, OTHER)


async def test_a_new_assignment_may_begin_at_an_older_offset(bench: Bench) -> None:
    """What was begun before does not bound it: the committed offset does."""
    bench.deliver(bench.plan("r"), 5)
    await bench.settle()
    bench.worker.assigned(frozenset({TP}))
    bench.deliver(bench.plan("older"), 3)
    await bench.settle()

    assert bench.committed() == 4
