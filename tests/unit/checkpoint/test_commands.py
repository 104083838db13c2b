"""Commands: what each changes in each state, and that the rest is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID

import pytest

from flux_checkpoint.domain import commands
from flux_checkpoint.domain.commands import CommandName, apply_command
from flux_checkpoint.domain.model import Run, RunKey
from flux_checkpoint.domain.states import RunState, may_move

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TTL = timedelta(days=30)
S = RunState
RUN = Run(RunKey("nasa", UUID(int=1)), "r", S.RUNNING, 1, 32, 128, "skip", 1.0, NOW, NOW + TTL)
CHANGES: dict[tuple[CommandName, RunState], RunState] = {
    ("pause", S.ADMITTED): S.ADMITTED,
    ("pause", S.PLANNING): S.PLANNING,
    ("pause", S.RUNNING): S.PAUSED,
    ("resume", S.PAUSED): S.RUNNING,
    ("cancel", S.ADMITTED): S.CANCELLING,
    ("cancel", S.PLANNING): S.CANCELLING,
    ("cancel", S.RUNNING): S.CANCELLING,
    ("cancel", S.PAUSED): S.CANCELLING,
    ("cancel", S.FINALIZING): S.CANCELLING,
    ("retry", S.FAILED): S.PLANNING,
}


@pytest.mark.parametrize("state", list(RunState))
@pytest.mark.parametrize("command", ["pause", "resume", "cancel", "retry"])
def test_a_command_changes_what_the_table_says_and_nothing_else(command: CommandName, state: RunState) -> None:
    """Every pair of command and state, against the table."""
    applied = apply_command(replace(RUN, state=state), command, "c-1", NOW, TTL, 0)

    assert (applied.run.state if applied else None) == CHANGES.get((command, state))
    assert applied is None or applied.run.state == state or may_move(state, applied.run.state)


def test_a_pause_is_remembered_once_and_can_be_forgotten() -> None:
    """In PLANNING: pause, pause again (refused), resume."""
    planning = replace(RUN, state=S.PLANNING)
    paused = apply_command(planning, "pause", "c", NOW, TTL, 0)
    assert paused is not None

    assert paused.run.pause_wanted
    assert apply_command(paused.run, "pause", "c", NOW, TTL, 0) is None
    resumed = apply_command(paused.run, "resume", "c", NOW, TTL, 0)
    assert resumed is not None
    assert not resumed.run.pause_wanted


@pytest.mark.parametrize(
    ("plan", "unfinished", "goes_to"), [(None, 0, S.PLANNING), (b"p" * 32, 1, S.RUNNING), (b"p" * 32, 0, S.FINALIZING)]
)
def test_retry_resumes_where_the_run_failed(plan: bytes | None, unfinished: int, goes_to: RunState) -> None:
    """No plan → PLANNING; all partitions finished → FINALIZING; else RUNNING; the attempt counts on."""
    failed = replace(
        RUN, state=S.FAILED, plan_digest=plan, partitions=3 if plan else 0, partitions_made=3 if plan else 0
    )
    applied = apply_command(failed, "retry", "c", NOW, TTL, unfinished)
    assert applied is not None

    assert (applied.run.state, applied.run.run_attempt) == (goes_to, 2)
    assert applied.restart_items


def test_the_table_that_readers_see_is_what_happens() -> None:
    """Each cell of the table in `commands` says refused exactly where a command changes nothing."""
    assert commands.__doc__ is not None
    head, _rule, *lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in commands.__doc__.splitlines()
        if line.startswith("|")
    ]
    said: dict[tuple[str, RunState], bool] = {}
    for command, *cells in lines:
        for states, cell in zip(head[1:], cells, strict=True):
            said |= {(command, RunState(name)): cell == "refused" for name in states.split(", ")}
    waiting = {state: replace(RUN, state=state, pause_wanted=True) for state in RunState}
    plain = {state: replace(RUN, state=state) for state in RunState}
    found = {
        (command, state): all(
            apply_command(run, cast("CommandName", command), "c", NOW, TTL, 0) is None
            for run in (waiting[state], plain[state])
        )
        for command, state in said
    }

    assert len(said) == 4 * 6
    assert found == said
