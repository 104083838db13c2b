"""The backbone: the code's figures, the suites that carry the proofs, and the README's commands in fresh clones."""

from __future__ import annotations

import re
import statistics
import subprocess
from ast import AsyncFunctionDef, FunctionDef, parse, walk
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from flux_devkit.finding import Finding, Item
from flux_devkit.home import find_checkout
from flux_devkit.milestones.clones import fresh_clones
from flux_devkit.suites import bare, passing

FUNCTION_LINES_MEDIAN_MAX: Final = 12.0
FILE_LINES_MAX: Final = 400


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
    """Return the length of every function of what ships and the devkit, and of every file, tests included."""
    packages = [*checkout.glob("libs/*/src/**/*.py"), *checkout.glob("services/*/src/**/*.py")]
    texts = {path: path.read_text() for path in sorted([*packages, *checkout.glob("tests/**/*.py")])}
    nodes = [node for path in packages for node in walk(parse(texts[path]))]
    functions = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for node in nodes
        if isinstance(node, FunctionDef | AsyncFunctionDef)
    ]
    return functions, [(str(path.relative_to(checkout)), len(text.splitlines())) for path, text in texts.items()]


ITEMS: Final[dict[str, Item]] = {
    "check": check,
    "probes": passing("probes of what the code relies on", "tests/integration/probes", all_run=True),
    "oracle": passing("the oracle catches every seeded fault", "tests/integration/oracle", all_run=True),
    "foreign": passing(
        "a client that knows only Kafka plays producer and subscriber", "tests/e2e/test_foreign_client.py", all_run=True
    ),
    "agencies": passing(
        "three agencies, 30 runs, 2,000 objects, oracle clean", "tests/e2e/test_agencies.py", all_run=True
    ),
    "kill": passing(
        "kill -9 of each of the four services, nothing lost or doubled", "tests/e2e/test_kill.py", all_run=True
    ),
    "refusals": passing(
        "every hostile record has its own answer, the lane goes on", "tests/e2e/test_refusals.py", all_run=True
    ),
    "trace": passing("one trace across the services", "tests/e2e/test_trace.py", all_run=True),
    "clone": fresh_clones,
}
