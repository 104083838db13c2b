"""`python -m flux_devkit.demo [--source FOLDER]`: servers up, three agencies' runs, proof, servers down."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import time
from pathlib import Path

from rich.console import Console

from flux_devkit.demo.screen import Screen, summary
from flux_devkit.demo.story import Chapter, Story, Wish, elapsed
from flux_devkit.errors import DevkitError
from flux_devkit.flux import Flux
from flux_devkit.home import Home, locate
from flux_devkit.installation import Installation
from flux_devkit.samples import sample_archive
from flux_devkit.servers import Place, Servers
from flux_devkit.stack import Stack


def main() -> int:
    """Tell the story; 0 if every request was decided as it should be and every accepted run completed with proof."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--source", type=Path, help="a folder of your own (default: sample pictures and documents)")
    arguments = parser.parse_args()
    console, begun = Console(), time.monotonic()
    if arguments.source is not None and not arguments.source.is_dir():
        console.print(f"[red]There is no folder {arguments.source}.[/] Give one with: make demo SOURCE=/your/folder")
        return 2
    try:
        return demonstrate(console, locate(), arguments.source, begun)
    except DevkitError as problem:
        console.print(f"[red]{problem}[/]")
        return 1


def demonstrate(console: Console, home: Home, source: Path | None, begun: float) -> int:
    """Start everything, tell the story, show the summary, and stop what was started."""
    place = Place(home, home.root / "demo" / "servers", home.root / "demo" / "logs", (), lambda line: say(line))
    shutil.rmtree(home.root / "demo", ignore_errors=True)
    archive = source or sample_archive(home)
    wishes = wishes_for(archive, own=source is not None)
    with Screen(console) as screen:
        say = screen.step
        with Stack(place) as servers, flux_on(home, servers, archive) as flux:
            screen.step(f"four services are ready, logs in {flux.logs}")
            story = Story(flux, wishes, screen.changed)
            asyncio.run(story.tell())
    console.print(summary(story.chapters, elapsed(begun)))
    console.print(f"Datasets: {home.root / 'demo' / 'data' / 'datasets'}   Logs: {home.root / 'demo' / 'logs'}")
    return 0 if all(as_it_should_be(chapter) for chapter in story.chapters) else 1


def flux_on(home: Home, servers: Servers, archive: Path) -> Flux:
    """Return a fresh Flux on these servers, which may read the archive."""
    installation = Installation(servers, home.keys, home.root / "demo" / "data", "flux_demo", source_roots=[archive])
    return Flux(installation, home.root / "demo" / "logs", keep_database=True)


def wishes_for(archive: Path, *, own: bool) -> list[Wish]:
    """Return who asks for what; the last one is signed with another agency's key."""
    if own:
        return [Wish("national-archives", "demo-own", "mixed", archive)]
    return [
        Wish("national-archives", "demo-mixed", "mixed", archive, ("image/*", "text/*")),
        Wish("nasa", "demo-images", "images", archive, ("image/*",)),
        Wish("library-of-congress", "demo-text", "text", archive, ("text/*",)),
        Wish("nasa", "demo-forged", "images", archive, ("image/*",), signed_by="library-of-congress"),
    ]


def as_it_should_be(chapter: Chapter) -> bool:
    """Tell whether a forged wish was refused, and any other completed with a proven receipt and a readable dataset."""
    if chapter.wish.signed_by is not None:
        return chapter.decision is not None and not chapter.decision.accepted
    end = chapter.end
    return end is not None and end.type == "flux.run.completed.v1" and end.receipt is not None and bool(chapter.tables)


if __name__ == "__main__":
    sys.exit(main())
