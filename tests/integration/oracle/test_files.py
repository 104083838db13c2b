"""Faults in the store: a byte that changed in a file, and a file that is gone, are found through the digests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flux_devkit.oracle.files import folder_of

if TYPE_CHECKING:
    from conftest import Rest

FILES = [
    ("records/*.json", "I3"),
    ("plan-*.ndjson.zst", "I9"),
    ("manifest-*.json", "I9"),
    ("data/**/*.parquet", "I9"),
    ("rejects/*.ndjson", "I9"),
    ("index/*", "I9"),
]


def a_file(rest: Rest, pattern: str) -> Path:
    """Return the first file of the completed run that matches."""
    run = next(run for run in rest.world.tables.runs if run.state == "COMPLETED")
    folder = folder_of(run)
    assert folder is not None
    return sorted(folder.glob(pattern))[0]


@pytest.mark.parametrize(("pattern", "invariant"), FILES)
def test_a_byte_of_a_file_is_changed(rest: Rest, pattern: str, invariant: str) -> None:
    """One flipped bit in the middle of any file of a dataset."""
    path = a_file(rest, pattern)
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    try:
        found = rest.new(rest.world)
    finally:
        path.write_bytes(whole)

    assert set(found) == {invariant}
    assert rest.new(rest.world) == {}


@pytest.mark.parametrize(("pattern", "invariant"), FILES)
def test_a_file_is_gone(rest: Rest, pattern: str, invariant: str) -> None:
    """Any file of a dataset, deleted."""
    path = a_file(rest, pattern)
    whole = path.read_bytes()
    path.unlink()
    try:
        found = rest.new(rest.world)
    finally:
        path.write_bytes(whole)

    assert set(found) == {invariant}
