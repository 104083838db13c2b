"""The sample archives: what their manifest expects is what the datasets hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flux_transform.adapters.workers import ProcessWorkers
from flux_transform.domain.items import Job

Open = Callable[..., AbstractAsyncContextManager[ProcessWorkers]]
Rows = dict[str, dict[str, Any]]


@pytest.fixture
async def dataset(samples: Path, tmp_path: Path, open_workers: Open, make_driver: Callable[..., Any]) -> Path:
    """Carry the whole sample folder through a mixed run; return the run's folder."""
    job = Job(
        f"file://{samples}", f"file://{tmp_path}/out", "mixed", "research", exclude=("licenses/**", "manifest.json")
    )
    async with open_workers() as workers:
        driver = make_driver(workers, job, [samples])
        await driver.run()
    return tmp_path / "out" / str(driver.base.run_id)


def rows(dataset: Path, table: str) -> Rows:
    """Return a table's rows by key (the first of each)."""
    found: Rows = {}
    for path in sorted((dataset / "data" / table).glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            found.setdefault(row["key"], row)
    return found


@pytest.mark.slow
async def test_every_sample_is_what_its_manifest_expects(samples: Path, dataset: Path) -> None:
    """Sizes, pages, encodings, characters and checksums agree; exactly the two bad ones are rejected."""
    expected = {entry["file"]: entry for entry in json.loads((samples / "manifest.json").read_text())["files"]}
    images, documents, texts = (rows(dataset, table) for table in ("images", "documents", "texts"))
    everything = {**images, **documents, **texts}
    listings = (dataset / "rejects").glob("*.ndjson")
    rejects = {json.loads(line)["key"] for path in listings for line in path.read_text().splitlines()}

    assert rejects == {"images/multipage-rgb.tif", "documents/invalid.pdf"}
    assert rejects == {key for key, entry in expected.items() if entry["expect"]["status"] == "refused"}
    assert everything.keys() == expected.keys() - rejects
    assert {key: row["sha256"] for key, row in everything.items()} == {
        key: expected[key]["sha256"] for key in everything
    }
    for key, row in images.items():
        wanted = expected[key]["expect"]
        assert [row[name] for name in ("format", "width", "height", "mode", "frames")] == [
            wanted[name] for name in ("format", "width", "height", "mode", "frames")
        ]
    for key, row in documents.items():
        wanted = expected[key]["expect"]
        assert (row["pages"], row["chars"] > 0) == (wanted["pages"], wanted["text_layer"])
    for key, row in texts.items():
        wanted = expected[key]["expect"]
        assert (row["encoding"], row["chars"], row["lines"]) == (
            wanted["encoding"],
            wanted["characters"],
            wanted["lines"],
        )


LANGUAGES = {
    "text/debian-faq-fr.txt": "fr",
    "text/debian-faq-ja.txt": "ja",
    "text/debian-faq-ru.txt": "ru",
    "text/us-constitution.txt": "en",
}


@pytest.mark.slow
async def test_languages_are_told(dataset: Path) -> None:
    """Of the texts whose language the manifest's titles name."""
    found = {key: row["language"] for key, row in rows(dataset, "texts").items()}

    assert {key: found[key] for key in LANGUAGES} == LANGUAGES
