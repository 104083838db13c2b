"""How the demonstration looks: progress while it runs, a summary at the end. On no terminal, plain lines."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console, Group
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table as Grid
from rich.text import Text

from flux_common.contracts.runs import RunCompleted
from flux_devkit.demo.story import Chapter, Table

CELL_MAX = 42
NUMBERS = {"partitions", "read", "written", "rejected"}
SHOWN_COLUMNS = 5


class Screen:
    """Shows the chapters as they go on."""

    def __init__(self, console: Console) -> None:
        self.console = console
        state = TextColumn("{task.fields[state]}")
        columns = (
            TextColumn("{task.description:<34}"),
            BarColumn(28),
            MofNCompleteColumn(),
            state,
            TimeElapsedColumn(),
        )
        self._bars = Progress(*columns, console=console, disable=not console.is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self._said: set[tuple[str, str]] = set()

    def __enter__(self) -> Screen:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def step(self, text: str) -> None:
        """Say what happens now."""
        self.console.print(f"[dim]·[/] {text}")

    def changed(self, chapter: Chapter) -> None:
        """Show that a chapter went on."""
        if chapter.progress is None:
            self._decided(chapter)
        else:
            self._moved(chapter)

    def _decided(self, chapter: Chapter) -> None:
        decision = chapter.decision
        if decision is None:
            return
        code = getattr(decision.event.body, "code", None)
        word = f"[red]rejected[/] {code}" if code else f"[green]{decision.event.type.split('.')[2]}[/]"
        self.console.print(f"  {chapter.wish.agency}: {chapter.wish.request_id} {word}")

    def _moved(self, chapter: Chapter) -> None:
        seen, name = chapter.progress, chapter.wish.request_id
        assert seen is not None
        if self.console.is_terminal:
            task = self._tasks.get(name) or self._tasks.setdefault(
                name, self._bars.add_task(f"{chapter.wish.agency}/{chapter.wish.content_type}", state="", total=None)
            )
            self._bars.update(task, total=seen.objects or None, completed=seen.read or 0, state=seen.state)
        elif (name, seen.state) not in self._said:
            self._said.add((name, seen.state))
            self.console.print(f"  {chapter.wish.agency}: {name} {seen.state} {seen.read or 0}/{seen.objects or '?'}")


def summary(chapters: list[Chapter], seconds: float) -> Group:
    """Return the last picture: decisions, counts, receipts, a sample of each dataset, time."""
    parts: list[Any] = [_decisions(chapters), _counts(chapters)]
    parts += [_proof(chapter) for chapter in chapters if chapter.end is not None]
    parts += [Text(), *(_dataset(chapter) for chapter in chapters if chapter.tables)]
    parts.append(Text.from_markup(f"[bold]Done in {seconds:.1f} s.[/]"))
    return Group(*parts)


def _grid(title: str, *names: str) -> Grid:
    grid = Grid(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        grid.add_column(name, no_wrap=True, justify="right" if name in NUMBERS else "left")
    return grid


def _decisions(chapters: list[Chapter]) -> Grid:
    grid = _grid("Decisions", "agency", "request", "signed by", "decision")
    for chapter in chapters:
        decision = chapter.decision
        assert decision is not None
        code = getattr(decision.event.body, "code", "")
        word = f"[green]{decision.event.type.split('.')[2]}[/]" if decision.accepted else f"[red]{code}[/]"
        signer = chapter.wish.signed_by or chapter.wish.agency
        grid.add_row(chapter.wish.agency, chapter.wish.request_id, signer, word)
    return grid


def _counts(chapters: list[Chapter]) -> Grid:
    grid = _grid("Runs", "agency", "end", "partitions", "read", "written", "rejected")
    for chapter in chapters:
        if chapter.end is not None:
            grid.add_row(chapter.wish.agency, *_row(chapter.end.body))
    return grid


def _row(body: Any) -> tuple[str, ...]:
    if isinstance(body, RunCompleted):
        counts = body.counts
        figures = (body.partitions, counts.read, counts.written, counts.rejected)
        return ("[green]COMPLETED[/]", *(str(figure) for figure in figures))
    return (f"[red]{getattr(body, 'code', 'CANCELLED')}[/]", "", "", "", "")


def _proof(chapter: Chapter) -> Text:
    """Say why objects were rejected, and that the receipt holds."""
    assert chapter.end is not None
    codes = getattr(chapter.end.body, "rejects_by_code", {})
    named = ", ".join(f"{count} {code}" for code, count in sorted(codes.items())) or "none"
    receipt = chapter.end.receipt
    proof = (
        f"[green]receipt verified[/] (leaf {receipt.leaf_index} of {receipt.tree_size})"
        if receipt
        else "[red]no receipt[/]"
    )
    return Text.from_markup(f"{chapter.wish.agency}: {proof}; rejected: {named}")


def _dataset(chapter: Chapter) -> Panel:
    """Show the tables of a dataset, and some rows of the one with the most columns."""
    shown = max(chapter.tables, key=lambda table: len(table.columns))
    grid = Grid(box=None, pad_edge=False)
    names = _interesting(shown)
    for name in names:
        grid.add_column(name, overflow="ellipsis", no_wrap=True, max_width=CELL_MAX)
    for row in shown.sample:
        grid.add_row(*(_cell(row[name]) for name in names))
    tables = ", ".join(f"{table.kind} ({table.rows} rows)" for table in chapter.tables)
    where = Text(str(shown.folder.parent.parent), style="dim", overflow="fold")
    return Panel(Group(where, Text(tables), Text(), grid), title=chapter.wish.agency, title_align="left")


def _interesting(table: Table) -> list[str]:
    """Return the columns with short, telling values: those with blobs and digests come last."""
    names = [name for name in table.columns if not any(word in name for word in ("sha256", "hash", "bytes", "minhash"))]
    return (names or list(table.columns))[:SHOWN_COLUMNS]


def _cell(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    text = " ".join(str(value).split())
    return text if len(text) <= CELL_MAX else f"{text[: CELL_MAX - 1]}…"
