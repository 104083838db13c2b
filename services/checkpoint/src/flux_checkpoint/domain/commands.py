"""What a command does to a run (docs/semantics.md, Dispatch). A command that changes nothing is refused.

| command | ADMITTED, PLANNING | RUNNING | PAUSED | FINALIZING | FAILED |
|---|---|---|---|---|---|
| pause | remembered | PAUSED | refused | refused | refused |
| resume | forgets the pause | refused | RUNNING | refused | refused |
| cancel | CANCELLING | CANCELLING | CANCELLING | CANCELLING | refused |
| retry | refused | refused | refused | refused | where it failed, run_attempt + 1 |
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from flux_checkpoint.domain.model import Run
from flux_checkpoint.domain.states import TERMINAL, RunState

CANCEL_GRACE = timedelta(seconds=60)

CommandName = Literal["cancel", "pause", "resume", "retry"]


@dataclass(frozen=True, slots=True)
class Applied:
    """The run after a command, and what happens to its items."""

    run: Run
    fence_run: bool = False
    recall_queued: bool = False
    restart_items: bool = False


def apply_command(
    run: Run, command: CommandName, command_id: str, now: datetime, run_ttl: timedelta, unfinished_partitions: int
) -> Applied | None:
    """Return what `command` changes; None where it changes nothing (`RUN_STATE`)."""
    match command:
        case "pause":
            return _pause(run)
        case "resume":
            return _resume(run)
        case "cancel":
            return _cancel(run, command_id, now)
        case "retry":
            return _retry(run, now, run_ttl, unfinished_partitions)


def _pause(run: Run) -> Applied | None:
    if run.state in {RunState.ADMITTED, RunState.PLANNING} and not run.pause_wanted:
        return Applied(replace(run, pause_wanted=True))
    if run.state is RunState.RUNNING:
        return Applied(replace(run, state=RunState.PAUSED), recall_queued=True)
    return None


def _resume(run: Run) -> Applied | None:
    if run.state is RunState.PAUSED:
        return Applied(replace(run, state=RunState.RUNNING, pause_wanted=False))
    if run.state in {RunState.ADMITTED, RunState.PLANNING} and run.pause_wanted:
        return Applied(replace(run, pause_wanted=False))
    return None


def _cancel(run: Run, command_id: str, now: datetime) -> Applied | None:
    if run.state in TERMINAL or run.state is RunState.CANCELLING:
        return None
    leaving = replace(run, state=RunState.CANCELLING, cancel_command_id=command_id, cancel_deadline=now + CANCEL_GRACE)
    return Applied(leaving, fence_run=True, recall_queued=True)


def _retry(run: Run, now: datetime, run_ttl: timedelta, unfinished_partitions: int) -> Applied | None:
    if run.state is not RunState.FAILED:
        return None
    if run.plan_digest is None:
        state = RunState.PLANNING
    elif run.partitions_made == run.partitions and unfinished_partitions == 0:
        state = RunState.FINALIZING
    else:
        state = RunState.RUNNING
    again = replace(
        run, state=state, run_attempt=run.run_attempt + 1, deadline=now + run_ttl, pause_wanted=False, broken_code=None
    )
    return Applied(again, restart_items=True)
