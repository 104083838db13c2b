"""Showing how far a run is: a bar on a terminal, plain lines elsewhere. Always on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flux_client.cli.output import say
from flux_client.watching import Progress

Tell = Callable[[Progress], None]


@contextmanager
def telling(run: str) -> Iterator[Tell]:
    """Yield what is to be told each progress of a run."""
    if sys.stderr.isatty():
        with _bar(run) as tell:
            yield tell
    else:
        yield lambda progress: say(line(progress))


def line(progress: Progress) -> str:
    """Return a progress in one line."""
    text = progress.state
    if progress.run_attempt is not None and progress.run_attempt > 1:
        text += f" (attempt {progress.run_attempt})"
    if progress.objects:
        share = 100 * (progress.read or 0) // progress.objects
        text += f"  {progress.read}/{progress.objects} objects ({share} %)"
    if progress.partitions:
        text += f", {progress.partitions_finished}/{progress.partitions} partitions"
    return text + (f", {progress.rejected} rejected" if progress.rejected else "")


@contextmanager
def _bar(run: str) -> Iterator[Tell]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.fields[run]}"), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[more]}"), TimeElapsedColumn(), console=Console(stderr=True),
    )  # fmt: skip
    with bar:
        task = bar.add_task("SUBMITTED", total=None, run=run, more="")

        def tell(progress: Progress) -> None:
            more = f"{progress.partitions_finished}/{progress.partitions} partitions" if progress.partitions else ""
            more += f", {progress.rejected} rejected" if progress.rejected else ""
            bar.update(
                task,
                description=progress.state,
                total=progress.objects or None,
                completed=progress.read or 0,
                more=more,
            )

        yield tell
