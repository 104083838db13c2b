"""The life of runs and items: the tables, what the schema says of the same words, and what the design says of both."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from flux_checkpoint.domain.states import (
    IN_HAND,
    ITEM_MOVES,
    RUN_MOVES,
    TERMINAL,
    ItemState,
    RunState,
    item_may_move,
    may_move,
)

SCHEMA = files("flux_common.postgres").joinpath("migrations", "0001_pre_foundation.sql").read_text()
R = RunState


def checked(table: str) -> set[str]:
    """Return the states that the CHECK of a table's column `state` lists."""
    columns = SCHEMA.partition(f"CREATE TABLE flux.{table} (")[2]
    found = re.search(r"\bstate\s+text\s+NOT NULL CHECK \(state IN \(([^)]*)\)\)", columns)
    assert found is not None
    return set(re.findall(r"'(\w+)'", found[1]))


def test_the_schema_allows_a_run_the_states_that_the_table_knows() -> None:
    """SQL CHECK and enum name the same states of a run; each has its line."""
    assert checked("runs") == {state.value for state in RunState} == set(RUN_MOVES)


def test_the_schema_allows_an_item_the_states_that_the_table_knows() -> None:
    """SQL CHECK and enum name the same states of an item; each has its line."""
    assert checked("checkpoints") == {state.value for state in ItemState} == set(ITEM_MOVES)


def test_the_schema_means_the_same_states_by_the_end_of_a_run() -> None:
    """Every list of final states in the schema is TERMINAL; every list of states in hand is IN_HAND."""
    ends = re.findall(r"state (?:NOT )?IN \(('COMPLETED'[^)]*)\)", SCHEMA)
    in_hand = re.findall(r"state IN \(('DISPATCHED', 'RUNNING')\)", SCHEMA)

    assert ends
    assert in_hand
    assert {frozenset(re.findall(r"'(\w+)'", one)) for one in ends} == {frozenset(TERMINAL)}
    assert {frozenset(re.findall(r"'(\w+)'", one)) for one in in_hand} == {frozenset(IN_HAND)}


def test_final_states_absorb() -> None:
    """I6: nothing leads out of COMPLETED and CANCELLED; out of FAILED only what *retry* may resume."""
    assert RUN_MOVES[R.COMPLETED] == RUN_MOVES[R.CANCELLED] == frozenset()
    assert RUN_MOVES[R.FAILED] == {R.PLANNING, R.RUNNING, R.FINALIZING}


@pytest.mark.parametrize("state", sorted(set(RunState) - TERMINAL - {R.CANCELLING}))
def test_from_everywhere_a_run_can_fail_or_be_cancelled(state: RunState) -> None:
    """Any non-terminal state leads to FAILED and CANCELLING."""
    assert {R.FAILED, R.CANCELLING} <= RUN_MOVES[state]


def test_a_cancelled_run_ends_cancelled() -> None:
    """CANCELLING leads to CANCELLED alone, and nothing else leads there."""
    assert RUN_MOVES[R.CANCELLING] == {R.CANCELLED}
    assert [state for state in RunState if may_move(state, R.CANCELLED)] == [R.CANCELLING]


def test_every_state_is_reached_and_every_open_one_can_end() -> None:
    """No state is an island: from ADMITTED each can be reached, and from each open one a terminal one can."""
    assert reached(R.ADMITTED) | {R.ADMITTED} == set(RunState)
    assert all(reached(state) & TERMINAL for state in set(RunState) - TERMINAL)


def reached(state: RunState) -> set[RunState]:
    """Return the states that can follow, however late."""
    found: set[RunState] = set()
    waiting = [state]
    while waiting:
        new = RUN_MOVES[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def test_an_item_is_finished_once_and_given_again_from_everywhere_else() -> None:
    """FINISHED absorbs; every other state but PENDING itself leads back to PENDING."""
    assert ITEM_MOVES[ItemState.FINISHED] == frozenset()
    assert {state for state in ItemState if item_may_move(state, ItemState.PENDING)} == {
        ItemState.DISPATCHED,
        ItemState.RUNNING,
        ItemState.FAILED,
    }


def test_nothing_is_finished_that_was_not_handed_out() -> None:
    """Only an item in hand can be finished."""
    assert {state for state in ItemState if item_may_move(state, ItemState.FINISHED)} == IN_HAND
