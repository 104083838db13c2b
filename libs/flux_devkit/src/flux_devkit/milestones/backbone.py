"""The backbone: the README's commands in a fresh clone, and the suites that carry the proofs. About an hour."""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import time
from ast import AsyncFunctionDef, FunctionDef, parse, walk
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

from flux_devkit.finding import Finding, Item
from flux_devkit.home import find_checkout
from flux_devkit.suites import bare, passing, suite

DEMO_SECONDS_MAX: Final = 360.0
FUNCTION_LINES_MEDIAN_MAX: Final = 12.0
FILE_LINES_MAX: Final = 400
QUIET: Final = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def fresh_clone(folder: Path) -> Iterator[Finding]:
    """The two commands, each in a new folder: run and run again; the demo is first interrupted half-way."""
    clone, tested = cloned(folder / "demo"), cloned(folder / "test")
    yield interrupted(clone, after_seconds=25)
    first = yield from timed(clone, "make demo in a fresh clone, after a Ctrl-C half-way")
    yield from timed(clone, "make demo again", limit=first)
    seconds = yield from suite(tested, "make test in a fresh clone", ["make", "test"])
    yield from suite(tested, "make test again", ["make", "test"], limit=seconds)


def cloned(folder: Path) -> Path:
    """Clone this checkout's last commit into a new folder, and return it."""
    subprocess.run(["git", "clone", "-q", str(find_checkout()), str(folder)], check=True)
    return folder


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


def processes() -> Iterator[tuple[int, str]]:
    """Yield id and command line of every process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue


ITEMS: Final[dict[str, Item]] = {
    "check": check,
    "probes": passing("probes of what the code relies on", "tests/integration/probes"),
    "oracle": passing("the oracle catches every seeded fault", "tests/integration/oracle"),
    "foreign": passing(
        "a client that knows only Kafka plays producer and subscriber", "tests/e2e/test_foreign_client.py"
    ),
    "agencies": passing("three agencies, 30 runs, 2,000 objects, oracle clean", "tests/e2e/test_agencies.py"),
    "kill": passing("kill -9 of each of the four services, nothing lost or doubled", "tests/e2e/test_kill.py"),
    "refusals": passing("every hostile record has its own answer, the lane goes on", "tests/e2e/test_refusals.py"),
    "trace": passing("one trace across the services", "tests/e2e/test_trace.py"),
    "clone": fresh_clone,
}
