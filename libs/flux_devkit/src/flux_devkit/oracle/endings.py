"""I6: one terminal event for each attempt, equal to the run's row; what is final stays; no event is published twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from flux_common.contracts import catalogue
from flux_common.kernel.ids import terminal_id
from flux_devkit.oracle.report import Violation
from flux_devkit.oracle.rows import RunRow
from flux_devkit.oracle.world import PUBLISHED, Event, Run, World, group, repeated

STATES = {
    catalogue.RUN_COMPLETED.ce_type: "COMPLETED",
    catalogue.RUN_FAILED.ce_type: "FAILED",
    catalogue.RUN_CANCELLED.ce_type: "CANCELLED",
}
FINAL = frozenset({"COMPLETED", "CANCELLED"})
FINAL_LINES = frozenset({"run.completed", "run.cancelled"})


def events_are_published_once(world: World) -> Iterator[Violation]:
    """I6: a read_committed reader of any topic that relays write sees each ce_id once, and no ce_id on two topics."""
    events = [event for spec in PUBLISHED for event in world.published(spec)]
    for event_id, found in repeated(events, lambda event: event.id):
        yield Violation(
            "I6", f"ce_id {event_id} was published {len(found)} times", tuple(event.name for event in found)
        )


def terminal_events(world: World) -> dict[Run, list[Event]]:
    """Return the terminal events of each run, in order of attempts."""
    ends = [event for event in world.on(catalogue.COMPLETIONS) if event.type in STATES]
    return group(sorted(ends, key=lambda event: event.get("run_attempt") or 0), lambda event: event.about)


def attempts_end_once(world: World) -> Iterator[Violation]:
    """I6: each attempt that ended has one terminal event under the id derived from it; no other attempt has any."""
    told = terminal_events(world)
    for key, run in world.runs.items():
        attempts = [event.get("run_attempt") for event in told.get(key, [])]
        expected = list(range(1, run.terminal_attempt + 1))
        if world.expired(catalogue.COMPLETIONS.of(run.agency_id)):  # the oldest may be gone, the rest must be there
            expected = expected[max(0, len(expected) - len(attempts)) :]
        if attempts != expected:
            what = f"terminal events of the attempts {attempts}, {run.terminal_attempt} ended"
            yield Violation("I6", what, (str(run.run_id),))
    for key, events in told.items():
        for event in events:
            if event.id != str(terminal_id(str(event.get("run_id")), event.get("run_attempt"))):
                yield Violation("I6", "a terminal event under another id than its attempt's", (event.name, event.id))
            if key not in world.runs:
                yield Violation("I6", "a terminal event of a run that is not there", (event.name, event.id))


def ends_are_as_the_rows_say(world: World) -> Iterator[Violation]:
    """I6: earlier attempts FAILED; the last one's event says what the run's row says."""
    for key, events in terminal_events(world).items():
        run = world.runs.get(key)
        for event in events if run is not None else ():
            assert run is not None
            last = event.get("run_attempt") == run.run_attempt
            expected = run.state if last else "FAILED"
            if STATES[event.type] != expected:
                what = f"attempt {event.get('run_attempt')} was told as {STATES[event.type]}, it is {expected}"
                yield Violation("I6", what, (str(run.run_id), event.name))
            elif last:
                yield from _differences(run, event)


def _differences(run: RunRow, event: Event) -> Iterator[Violation]:
    said = {name: event.get(name) for name in _stated(run)}
    for name, value in _stated(run).items():
        if said[name] != value:
            what = f"the terminal event says {name} = {said[name]}, the row {value}"
            yield Violation("I6", what, (str(run.run_id), event.name))


def _stated(run: RunRow) -> dict[str, Any]:
    counts = ("read", "written", "rejected", "bytes_in", "bytes_out")
    stated: dict[str, Any] = {"request_id": run.request_id, "counts": {name: getattr(run, name) for name in counts}}
    if run.state == "FAILED":
        stated |= {"cause": run.cause, "code": run.code}
    return stated


def the_final_absorb(world: World) -> Iterator[Violation]:
    """I6: after COMPLETED or CANCELLED nothing more happens to a run, but that a command is refused."""
    last: dict[tuple[str, UUID], int] = {}
    for row in sorted(world.tables.history, key=lambda row: row.event_no):
        key = (row.agency_id, row.run_id)
        if key in last:
            what = f"{row.type} after the run was final"
            yield Violation("I6", what, (str(row.run_id), f"event {row.event_no}"))
        if row.source == "dispatcher" and row.type in FINAL_LINES:
            last[key] = row.event_no
    for key in last:
        run = world.runs.get(key)
        if run is not None and run.state not in FINAL:
            yield Violation("I6", f"the history ends, the run is {run.state}", (str(run.run_id),))


CHECKS = (events_are_published_once, attempts_end_once, ends_are_as_the_rows_say, the_final_absorb)
