"""One run through all services: request, decision, dataset, completion, receipt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow.dataset

from flux_common.kernel.ids import sha256_hex
from flux_devkit.asking import a_request, ask, ends, texts
from flux_devkit.flux import Flux
from flux_devkit.home import locate
from flux_devkit.samples import sample_archive


def files_of(node: Any) -> Iterator[tuple[str, str]]:
    """Yield name and digest of every file that a manifest lists, wherever it stands."""
    if isinstance(node, dict) and "name" in node and "sha256" in node:
        yield node["name"], node["sha256"]
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from files_of(child)


async def test_a_run_goes_from_request_to_proven_completion(flux: Flux) -> None:
    """Counts reconcile, the manifest is the one named, its files are as it says, pyarrow reads them, the receipt holds."""
    source = texts(flux.folder("archives", "nasa", "one"), 12)
    (source / "broken.txt").write_bytes(bytes(range(256)))
    request = a_request(flux, "nasa", "one", source, partitioning={"objects_max": 5})
    (decision,) = await ask(flux, "nasa", request)
    end = (await ends(flux, "nasa", [decision.submitted.run_id], proven=True))[decision.submitted.run_id]
    manifest = Path(unquote(urlsplit(end.body.manifest.uri).path))  # type: ignore[attr-defined]
    listed = json.loads(manifest.read_bytes())

    assert (decision.accepted, end.type) == (True, "flux.run.completed.v1")
    counts = end.body.counts  # type: ignore[attr-defined]
    assert (counts.read, counts.written, counts.rejected) == (13, 12, 1)
    assert sha256_hex(manifest.read_bytes()) == end.body.manifest.sha256  # type: ignore[attr-defined]
    files = list(files_of(listed))
    of_dataset = [name for name, _ in files if not name.startswith(("plan-", "index/"))]
    assert len(of_dataset) == end.body.manifest.files  # type: ignore[attr-defined]
    assert all(sha256_hex((manifest.parent / name).read_bytes()) == digest for name, digest in files)
    assert end.receipt is not None
    shards = sorted(manifest.parent.rglob("*.parquet"))
    assert pyarrow.dataset.dataset(shards).count_rows() > 0


async def test_the_sample_archive_of_sixty_formats_is_worked(flux: Flux) -> None:
    """Every file of a mixed archive is written or rejected with a code; none is lost."""
    archive = sample_archive(locate())
    own = flux.folder("archives", "national-archives", "samples")
    for path in sorted(archive.rglob("demo.*")):
        (own / path.name).write_bytes(path.read_bytes())
    request = a_request(flux, "national-archives", "samples", own, content_type="mixed")
    (decision,) = await ask(flux, "national-archives", request)
    run = decision.submitted.run_id
    end = (await ends(flux, "national-archives", [run]))[run]

    body = end.body
    assert end.type == "flux.run.completed.v1"
    assert body.counts.read == len(list(own.iterdir()))  # type: ignore[attr-defined]
    assert body.counts.rejected == sum(body.rejects_by_code.values())  # type: ignore[attr-defined]
    assert body.counts.written > 0  # type: ignore[attr-defined]
