"""Determinism: the same plan and transform version make the same bytes, whoever works it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from flux_common.kernel.ids import sha256_hex

SCRIPT = Path(__file__).with_name("conformance_run.py")
MACHINES = (
    ("1", {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C"}),
    ("3", {"PYTHONHASHSEED": "2", "TZ": "Asia/Kathmandu", "LC_ALL": "C.UTF-8"}),
)


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of every file of a run."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256_hex(path.read_bytes()) for path in files}


async def carried(content_type: str, source: Path, out: Path, workers: str, machine: dict[str, str]) -> dict[str, str]:
    """Carry a run in a process of its own; return the digests of its files."""
    arguments = (str(SCRIPT), content_type, str(source), str(out), workers)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env={**os.environ, **machine}, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return digests(Path(output.decode().strip()))


@pytest.mark.slow
@pytest.mark.parametrize("content_type", ["images", "documents", "text", "mixed"])
async def test_two_machines_make_the_same_files(samples: Path, tmp_path: Path, content_type: str) -> None:
    """One worker process and three, other hash seeds, time zones and locales: every file is the same."""
    source = samples if content_type == "mixed" else samples / content_type

    found = [await carried(content_type, source, tmp_path / workers, workers, machine) for workers, machine in MACHINES]

    names = [set(files) for files in found]
    assert len(found[0]) > 5
    assert names[0] == names[1]
    assert found[0] == found[1]
