"""Rows to values and back: whatever a value holds comes back, in the columns that the statements name."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from flux_checkpoint.adapters.rows import columns_of, item_columns, item_of, run_columns, run_of
from flux_checkpoint.domain.model import COUNT_MAX, NUMBER_MAX, Counts, Item, ItemKey, Run, RunKey
from flux_checkpoint.domain.states import ItemState, RunState
from flux_common.postgres.queries import Queries

SQL = Queries.load("flux_checkpoint.adapters", "runs.sql")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

NUMBERS = st.integers(0, NUMBER_MAX)
COUNTS = st.integers(0, COUNT_MAX)
DIGESTS = st.none() | st.binary(min_size=32, max_size=32)
TEXTS = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)
INSTANTS = st.integers(0, 10**9).map(lambda seconds: EPOCH + timedelta(seconds=seconds))
CODES = st.from_regex(r"\A[A-Z][A-Z0-9_]{1,9}\Z")

ITEMS = st.builds(
    Item,
    key=st.builds(
        ItemKey, st.just("nasa"), st.uuids(), st.sampled_from(["plan", "extract", "gather", "finalize"]), NUMBERS
    ),
    state=st.sampled_from(ItemState),
    term=NUMBERS,
    attempt=NUMBERS,
    first_object=COUNTS,
    object_count=COUNTS,
    last_seq=NUMBERS,
    cursor=COUNTS,
    chain_head=DIGESTS,
    result_digest=DIGESTS,
    counts=st.builds(Counts, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS),
    rejects=st.dictionaries(CODES, COUNTS, max_size=4),
    not_before=st.none() | INSTANTS,
    failure_code=st.none() | CODES,
    failure_cause=st.sampled_from([None, "input", "transform", "infrastructure", "policy"]),
    worker=TEXTS,
    last_heard=st.none() | INSTANTS,
    last_slice=st.none() | INSTANTS,
    kafka_partition=st.none() | NUMBERS,
)
RUNS = st.builds(
    Run,
    key=st.builds(RunKey, st.just("nasa"), st.uuids()),
    request_id=st.just("r-1"),
    state=st.sampled_from(RunState),
    run_attempt=NUMBERS,
    run_window=NUMBERS,
    agency_window=NUMBERS,
    on_reject=st.sampled_from(["skip", "fail"]),
    ratio_max=st.floats(0, 1),
    admitted_at=INSTANTS,
    deadline=INSTANTS,
    pause_wanted=st.booleans(),
    cancel_command_id=TEXTS,
    cancel_deadline=st.none() | INSTANTS,
    broken_code=st.none() | CODES,
    plan_digest=DIGESTS,
    transform_version=TEXTS,
    objects=COUNTS,
    partitions=NUMBERS,
    partition_objects=st.lists(NUMBERS, max_size=5).map(tuple),
    partitions_made=NUMBERS,
    objects_made=COUNTS,
    traceparent=TEXTS,
)


def names(statement: str) -> list[str]:
    """Return the columns of a statement's parameters, in their order."""
    found = re.search(r"AS x \(([^)]*)\)", SQL[statement])
    assert found is not None
    return [name.strip() for name in found[1].split(",")]


def saved(statement: str, columns: tuple[Any, ...]) -> dict[str, Any]:
    """Return the row as the statement writes it."""
    return dict(zip(names(statement), columns, strict=True))


@given(ITEMS)
def test_an_item_comes_back_as_it_was_saved(item: Item) -> None:
    """What `save_items` writes, `item_of` reads; what it never writes stays as it was."""
    kept = {"first_object": item.first_object, "object_count": item.object_count, "dispatched_at": item.dispatched_at}

    assert item_of(kept | saved("save_items", item_columns(item))) == item


@given(RUNS)
def test_a_run_comes_back_as_it_was_saved(run: Run) -> None:
    """What `save_runs` writes, `run_of` reads; request, windows and the plan's cut are written elsewhere, and once."""
    kept = {
        "request": json.dumps({"on_reject": {"policy": run.on_reject, "ratio_max": run.ratio_max}}),
        "request_id": run.request_id,
        "run_window": run.run_window,
        "agency_window": run.agency_window,
        "admitted_at": run.admitted_at,
        "partition_objects": list(run.partition_objects),
        "traceparent": run.traceparent,
    }

    assert run_of(kept | saved("save_runs", run_columns(run))) == run


def test_a_request_that_says_nothing_of_rejects_skips_them() -> None:
    """The contract's defaults: policy skip, every ratio allowed."""
    run = Run(RunKey("nasa", UUID(int=1)), "r-1", RunState.RUNNING, 1, 1, 1, "fail", 0.5, EPOCH, EPOCH)
    kept = {
        "request": "{}", "request_id": "r-1", "run_window": 1, "agency_window": 1, "admitted_at": EPOCH,
        "partition_objects": [], "traceparent": None,
    }  # fmt: skip
    found = run_of(kept | saved("save_runs", run_columns(run)))

    assert (found.on_reject, found.ratio_max) == ("skip", 1.0)


def test_rows_become_columns_in_their_order() -> None:
    """`unnest` takes one array a column; rows of different lengths are a fault of ours."""
    assert columns_of([(1, "a"), (2, "b")]) == [[1, 2], ["a", "b"]]
