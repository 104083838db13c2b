"""Items of a proof that run something else: a part of the test suite, or a program that prints findings of its own."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

from flux_devkit.finding import Finding, Item
from flux_devkit.home import find_checkout

BROKEN: Final = re.compile(r"^(?:FAILED|ERROR) (tests/\S+)", re.M)
SUMMARY: Final = re.compile(r"(\d+) (passed|failed|error|errors|skipped)")


def suite(folder: Path, name: str, command: list[str], limit: float = float("inf")) -> Generator[Finding, None, float]:
    """Run tests and count; returns the seconds. A suite that ran nothing, or longer than `limit` seconds, does not hold."""
    begun = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=bare(folder), capture_output=True, text=True)
    tail = done.stdout.strip().splitlines()[-1:] or [""]
    counts = {word: int(number) for number, word in SUMMARY.findall(tail[0])}
    seconds = time.monotonic() - begun
    holds = done.returncode == 0 and counts.get("passed", 0) > 0 and not counts.get("failed", 0) and seconds <= limit
    bound = "exit 0, no failure" + ("" if limit == float("inf") else f", {limit:.0f} s")
    broken = "".join(f"; {test}" for test in BROKEN.findall(done.stdout)[:5])
    yield Finding(name, holds, f"exit {done.returncode}, {tail[0].strip('= ')}, {seconds:.0f} s{broken}", bound)
    return seconds


def passing(name: str, *paths: str, all_run: bool = False) -> Item:
    """Return the item that a part of the test suite is the proof of; with `all_run`, a test that was skipped breaks it."""

    def item(_folder: Path) -> Iterator[Finding]:
        checkout = find_checkout()
        command = [str(checkout / ".venv/bin/pytest"), "-q", *paths]
        for finding in suite(checkout, name, command):
            skipped = all_run and "skipped" in finding.measured
            yield Finding(
                name, finding.holds and not skipped, finding.measured, "exit 0, all run" if all_run else finding.bound
            )

    return item


def program(name: str, module: str, *arguments: str) -> Item:
    """Return the item that `python -m module` is the proof of: its findings, and one more if it ends without any."""

    def item(_folder: Path) -> Iterator[Finding]:
        checkout = find_checkout()
        command = [str(checkout / ".venv/bin/python"), "-m", module, *arguments]
        done = subprocess.run(command, cwd=checkout, env=bare(checkout), capture_output=True, text=True)
        found = [finding for line in done.stdout.splitlines() if (finding := Finding.of_line(line))]
        yield from found
        if not found or (done.returncode and all(finding.holds for finding in found)):
            last = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
            yield Finding(name, False, f"exit {done.returncode}: {last}", "exit 0 and its findings")

    return item


def bare(home: Path) -> dict[str, str]:
    """Return an environment with nothing left over: the path, a home for caches, the language."""
    kept = {
        name: os.environ[name]
        for name in ("PATH", "HOME", "LANG", "JAVA_HOME", "FLUX_CORPORA", "UV_SYSTEM_CERTS")
        if name in os.environ
    }
    corpora = home.parent / "shared" / "data"
    outside = find_checkout().parent / "shared" / "data"
    return {"FLUX_CORPORA": str(outside)} | kept if outside.is_dir() and not corpora.is_dir() else kept
