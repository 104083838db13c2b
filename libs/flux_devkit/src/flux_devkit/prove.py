"""`make prove-…`: everything that a milestone must show and a command can show, one line an item with its figure.

Each item runs the real thing: a fresh clone in a new folder with no environment left over, the README's commands, and the
suites that carry the proofs. A line says `ok` or `FALLS SHORT`, what was measured, and the bound; the exit status is 0 only
if all hold. `backbone` takes about forty minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from ast import AsyncFunctionDef, FunctionDef, parse, walk
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from flux_devkit.home import find_checkout

DEMO_SECONDS_MAX = 360.0
FUNCTION_LINES_MEDIAN_MAX = 12.0
FILE_LINES_MAX = 400
SUMMARY = re.compile(r"(\d+) (passed|failed|error|errors|skipped)")


@dataclass(frozen=True)
class Finding:
    """What one item showed."""

    item: str
    holds: bool
    measured: str
    bound: str

    def line(self) -> str:
        """Return the item's line."""
        return f"{'ok' if self.holds else 'FALLS SHORT':<12} {self.item}: {self.measured} (bound: {self.bound})"


Item = Callable[[Path], Iterator[Finding]]


def main() -> int:
    """Prove a milestone; 0 if every item holds."""
    parser = argparse.ArgumentParser(prog="make prove-backbone", description=__doc__)
    parser.add_argument("milestone", choices=sorted(MILESTONES))
    parser.add_argument("--only", help="run only items whose name contains this")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flux-prove-") as folder:
        findings = list(_findings(MILESTONES[arguments.milestone], Path(folder), arguments.only))
    short = sum(not finding.holds for finding in findings)
    print_line(f"{len(findings) - short} of {len(findings)} items hold")
    return 1 if short or not findings else 0


def _findings(items: dict[str, Item], folder: Path, only: str | None) -> Iterator[Finding]:
    for name, item in items.items():
        if only is None or only in name:
            for finding in item(folder):
                print_line(finding.line())
                yield finding


def print_line(text: str) -> None:
    """Say one line at once, also into a pipe."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def fresh_clone(folder: Path) -> Iterator[Finding]:
    """The two commands in a new folder: interrupted half-way, run, and run again; then the tests."""
    clone = folder / "flux"
    subprocess.run(["git", "clone", "-q", str(find_checkout()), str(clone)], check=True)
    yield interrupted(clone, after_seconds=25)
    first = yield from timed(clone, "make demo in a fresh clone, after a Ctrl-C half-way")
    yield from timed(clone, "make demo again", limit=first)
    yield from suite(clone, "make test in a fresh clone", ["make", "test"])


def interrupted(clone: Path, after_seconds: float) -> Finding:
    """Press Ctrl-C in the middle of the first `make demo`; nothing of it may go on."""
    begun = subprocess.Popen(["make", "demo"], cwd=clone, env=bare(clone), start_new_session=True, **QUIET)  # type: ignore[call-overload]
    time.sleep(after_seconds)
    os.killpg(begun.pid, signal.SIGINT)
    status = begun.wait(60)
    time.sleep(2)
    left = [pid for pid, words in processes() if str(clone) in words]
    return Finding(
        "Ctrl-C in the middle of make demo", status != 0 and not left, f"{len(left)} processes left", "none left"
    )


def timed(clone: Path, name: str, limit: float = DEMO_SECONDS_MAX) -> Generator[Finding, None, float]:
    """Run `make demo` and measure it; returns the seconds."""
    begun = time.monotonic()
    done = subprocess.run(["make", "demo"], cwd=clone, env=bare(clone), capture_output=True, text=True)
    seconds = time.monotonic() - begun
    proven = done.stdout.count("receipt verified")
    holds = done.returncode == 0 and seconds <= limit and proven == 3
    measured = f"exit {done.returncode}, {seconds:.0f} s, {proven} receipts verified"
    yield Finding(name, holds, measured, f"exit 0, {limit:.0f} s, 3 receipts")
    return seconds


def suite(folder: Path, name: str, command: list[str]) -> Iterator[Finding]:
    """Run tests and count; a suite that ran nothing does not hold."""
    begun = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=bare(folder), capture_output=True, text=True)
    tail = done.stdout.strip().splitlines()[-1:] or [""]
    counts = {word: int(number) for number, word in SUMMARY.findall(tail[0])}
    holds = done.returncode == 0 and counts.get("passed", 0) > 0 and not counts.get("failed", 0)
    seconds = time.monotonic() - begun
    yield Finding(name, holds, f"exit {done.returncode}, {tail[0].strip('= ')}, {seconds:.0f} s", "exit 0, no failure")


def tests(name: str, *paths: str) -> Item:
    """Return the item that a part of the test suite is the proof of."""

    def item(_folder: Path) -> Iterator[Finding]:
        checkout = find_checkout()
        yield from suite(checkout, name, [str(checkout / ".venv/bin/pytest"), "-q", *paths])

    return item


def check(_folder: Path) -> Iterator[Finding]:
    """`make check`, and the figures of the code."""
    checkout = find_checkout()
    done = subprocess.run(["make", "check"], cwd=checkout, env=bare(checkout), capture_output=True, text=True)
    kept = re.search(r"Contracts: (\d+) kept, (\d+) broken", done.stdout)
    said = kept.group(0) if kept else "no import contracts read"
    yield Finding("make check", done.returncode == 0, f"exit {done.returncode}; {said}", "exit 0, none broken")
    functions, files = figures(checkout)
    median = statistics.median(functions)
    bound = FUNCTION_LINES_MEDIAN_MAX
    yield Finding("median function", median <= bound, f"{median:g} lines of {len(functions)}", f"{bound:g} lines")
    longest = max(files, key=lambda pair: pair[1])
    measured = f"{longest[1]} lines, {longest[0]}"
    yield Finding("longest file", longest[1] <= FILE_LINES_MAX, measured, f"{FILE_LINES_MAX} lines")


def figures(checkout: Path) -> tuple[list[int], list[tuple[str, int]]]:
    """Return the length of every function, and of every file, of what ships and the devkit."""
    functions: list[int] = []
    files: list[tuple[str, int]] = []
    for path in sorted([*checkout.glob("libs/*/src/**/*.py"), *checkout.glob("services/*/src/**/*.py")]):
        text = path.read_text()
        files.append((str(path.relative_to(checkout)), len(text.splitlines())))
        nodes = [node for node in walk(parse(text)) if isinstance(node, FunctionDef | AsyncFunctionDef)]
        functions += [(node.end_lineno or node.lineno) - node.lineno + 1 for node in nodes]
    return functions, files


def bare(home: Path) -> dict[str, str]:
    """Return an environment with nothing left over: the path, a home for caches, the language."""
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "JAVA_HOME", "FLUX_CORPORA") if name in os.environ
    }
    corpora = home.parent / "shared" / "data"
    outside = find_checkout().parent / "shared" / "data"
    return {"FLUX_CORPORA": str(outside)} | kept if outside.is_dir() and not corpora.is_dir() else kept


def processes() -> Iterator[tuple[int, str]]:
    """Yield id and command line of every process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue


QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

MILESTONES: dict[str, dict[str, Item]] = {
    "backbone": {
        "check": check,
        "probes": tests("probes of what the code relies on", "tests/integration/probes"),
        "oracle": tests("the oracle catches every seeded fault", "tests/integration/oracle"),
        "foreign": tests(
            "a client that knows only Kafka plays producer and subscriber", "tests/e2e/test_foreign_client.py"
        ),
        "agencies": tests("three agencies, 30 runs, 2,000 objects, oracle clean", "tests/e2e/test_agencies.py"),
        "kill": tests("kill -9 of each of the four services, nothing lost or doubled", "tests/e2e/test_kill.py"),
        "refusals": tests("every hostile record has its own answer, the lane goes on", "tests/e2e/test_refusals.py"),
        "trace": tests("one trace across the services", "tests/e2e/test_trace.py"),
        "clone": fresh_clone,
    },
}

if __name__ == "__main__":
    sys.exit(main())
