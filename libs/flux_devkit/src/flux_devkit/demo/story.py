"""What the demonstration does, without a word of how it looks.

Three agencies ask for a dataset each, and somebody asks in another's name. Every request is decided; every accepted run is
followed to its end; the receipt of each end is proven offline; each dataset is opened with its consumer's library.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

import pyarrow.dataset

from flux_client.events import ReceivedEvent
from flux_client.producer import Decision, FluxProducer
from flux_client.reader import FluxReader, reading
from flux_client.subscriber import FluxSubscriber
from flux_client.tokens import IssuerKey
from flux_client.verifier import Trust
from flux_client.watching import Progress, progress
from flux_common.kernel.ids import sha256_hex
from flux_common.settings import PostgresSettings
from flux_devkit.flux import Flux

RUN_SECONDS = 240.0
SAMPLE_ROWS = 3


@dataclass(frozen=True)
class Wish:
    """One request of the demonstration: whose, by whose key, of what."""

    agency: str
    request_id: str
    content_type: str
    source: Path
    include: tuple[str, ...] = ()
    signed_by: str | None = None


@dataclass
class Chapter:
    """What became of a wish."""

    wish: Wish
    decision: Decision | None = None
    progress: Progress | None = None
    end: ReceivedEvent | None = None
    tables: list[Table] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """One table of a dataset as its consumer's library reads it."""

    kind: str
    folder: Path
    rows: int
    columns: tuple[str, ...]
    sample: tuple[dict[str, Any], ...]


Changed = Callable[[Chapter], None]


class Story:
    """Tells every chapter at once; `changed` is called whenever one goes on."""

    def __init__(self, flux: Flux, wishes: list[Wish], changed: Changed) -> None:
        self._flux = flux
        self._changed = changed
        self.chapters = [Chapter(wish) for wish in wishes]

    async def tell(self) -> None:
        """Submit all wishes and follow each to its end. Raises TimeoutError if one does not end."""
        async with asyncio.timeout(RUN_SECONDS):
            await asyncio.gather(*(self._chapter(chapter) for chapter in self.chapters))

    async def _chapter(self, chapter: Chapter) -> None:
        wish, kafka = chapter.wish, self._flux.installation.kafka()
        key = IssuerKey(self._flux.key(wish.signed_by or wish.agency))
        subscriber = FluxSubscriber(wish.agency, kafka, start="end", trust=self._trust(wish.agency))
        completions = subscriber.completions()
        async with subscriber, FluxProducer(wish.agency, kafka, key=key) as producer:
            await completions.open()
            chapter.decision = await producer.submit_and_wait(self._request(wish))
            self._changed(chapter)
            if not chapter.decision.accepted:
                return
            run = chapter.decision.submitted.run_id
            async with reading(self._reader(), wish.agency) as reader:
                watching = asyncio.create_task(self._watch(chapter, reader, UUID(run)))
                async for event in completions:
                    if getattr(event.body, "run_id", None) == run:
                        chapter.end = event
                        break
                await watching
        chapter.tables = await asyncio.to_thread(open_dataset, chapter.end)
        self._changed(chapter)

    async def _watch(self, chapter: Chapter, reader: FluxReader, run: UUID) -> None:
        while chapter.progress is None or not chapter.progress.ended:
            async for seen in progress(reader, run):
                chapter.progress = seen
                self._changed(chapter)
            await asyncio.sleep(0.1)

    def _request(self, wish: Wish) -> dict[str, Any]:
        return {
            "request_id": wish.request_id,
            "source": {"uri": f"{wish.source.resolve().as_uri()}/", "include": list(wish.include)},
            "content_type": wish.content_type,
            "use_case": "research",
            "destination": {"uri": f"{self._flux.folder('datasets', wish.agency).resolve().as_uri()}/"},
            "partitioning": {"objects_max": 8},
            "labels": {"collection": "demo"},
        }

    def _reader(self) -> PostgresSettings:
        installation = self._flux.installation
        return PostgresSettings(
            dsn=installation.role_dsn("flux_reader"), password_file=installation.password_file("flux_reader")
        )

    def _trust(self, agency: str) -> Trust:
        return Trust([self._flux.installation.verifier_key(agency)], agency)


def open_dataset(end: ReceivedEvent | None) -> list[Table]:
    """Return the tables of a completed run, read with pyarrow; none where the run did not complete.

    Raises:
        ValueError: the manifest is not the one that the completion names.
    """
    manifest = getattr(end.body, "manifest", None) if end is not None else None
    if manifest is None:
        return []
    path = path_of(manifest.uri)
    if sha256_hex(path.read_bytes()) != manifest.sha256:
        raise ValueError(f"{path} is not the manifest that the completion names")
    shards = sorted(path.parent.rglob("*.parquet"))
    folders = sorted({shard.parent for shard in shards})
    return [read_table(folder, path.parent) for folder in folders]


def read_table(folder: Path, run_folder: Path) -> Table:
    """Return what a folder of Parquet shards holds."""
    dataset = pyarrow.dataset.dataset(folder, format="parquet")
    head = dataset.head(SAMPLE_ROWS).to_pylist()
    return Table(
        str(folder.relative_to(run_folder)), folder, dataset.count_rows(), tuple(dataset.schema.names), tuple(head)
    )


def path_of(uri: str) -> Path:
    """Return the path of a file URI."""
    return Path(unquote(urlsplit(uri).path))


def elapsed(since: float) -> float:
    """Return the seconds since `since` on the monotonic clock."""
    return time.monotonic() - since
