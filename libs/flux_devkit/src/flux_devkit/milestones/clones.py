"""The README's two commands in new folders: run and run again, and interrupted in the middle and run again.

In the middle is when the servers are up: before that, Ctrl-C would only show how an installation is interrupted.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import psutil

from flux_devkit.finding import Finding
from flux_devkit.home import find_checkout
from flux_devkit.suites import bare, suite
from flux_devkit.supervise import GUARD, wait_until_gone

DEMO_SECONDS_MAX: Final = 360.0
SERVERS_OF: Final = {"demo": 6, "test": 2}  # Kafka and PostgreSQL; in the demo the four services, too
SERVERS_SECONDS_MAX: Final = 300.0
INTO_SECONDS: Final = 3.0  # how long they have been up when Ctrl-C comes
QUIET: Final = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
AFTERWARDS: Final = "TESTS=tests/integration/devkit tests/e2e/test_agencies.py tests/e2e/test_kill.py"


def fresh_clones(folder: Path) -> Iterator[Finding]:
    """Both commands from nothing and again, faster; both interrupted, and run after it."""
    fresh, broken = cloned(folder / "fresh"), cloned(folder / "broken")
    first = yield from demo(fresh, "make demo in a fresh clone")
    yield from demo(fresh, "make demo again", limit=first)
    yield interrupted(broken, "demo")
    yield from demo(broken, "make demo after a Ctrl-C in the middle of the first")
    yield interrupted(broken, "test")
    yield from suite(
        broken, "make test of servers and runs, after a Ctrl-C in the middle", ["make", "test", AFTERWARDS]
    )
    tested = cloned(folder / "tested")
    seconds = yield from suite(tested, "make test in a fresh clone", ["make", "test"])
    yield from suite(tested, "make test again", ["make", "test"], limit=seconds)


def cloned(folder: Path) -> Path:
    """Clone this checkout's last commit into a new folder, and return it."""
    subprocess.run(["git", "clone", "-q", str(find_checkout()), str(folder)], check=True)
    return folder


def demo(clone: Path, name: str, limit: float = DEMO_SECONDS_MAX) -> Generator[Finding, None, float]:
    """Run `make demo` and measure it; returns the seconds."""
    begun = time.monotonic()
    done = subprocess.run(["make", "demo"], cwd=clone, env=bare(clone), capture_output=True, text=True)
    seconds = time.monotonic() - begun
    proven = done.stdout.count("receipt verified")
    holds = done.returncode == 0 and seconds <= limit and proven == 3
    measured = f"exit {done.returncode}, {seconds:.1f} s, {proven} receipts verified"
    yield Finding(name, holds, measured, f"exit 0, {limit:.1f} s, 3 receipts")
    return seconds


def interrupted(clone: Path, target: str) -> Finding:
    """Press Ctrl-C in the middle of `make TARGET`; nothing of it may go on."""
    begun = subprocess.Popen(["make", target], cwd=clone, env=bare(clone), start_new_session=True, **QUIET)  # type: ignore[call-overload]
    family = family_with_servers(begun.pid, SERVERS_OF[target])
    up = len(servers_among(family))
    os.killpg(begun.pid, signal.SIGINT)
    status = begun.wait(120)
    left = wait_until_gone([process.pid for process in family], 2)
    return Finding(
        f"Ctrl-C in the middle of make {target}",
        status != 0 and up >= SERVERS_OF[target] and not left,
        f"{up} servers and services were up, {len(left)} of {len(family)} processes left",
        f"at least {SERVERS_OF[target]} up, none left",
    )


def family_with_servers(pid: int, count: int) -> list[psutil.Process]:
    """Return a process's descendants when `count` servers among them have been up for a moment, or will not be."""
    deadline = time.monotonic() + SERVERS_SECONDS_MAX
    maker = psutil.Process(pid)
    while len(servers_among(maker.children(recursive=True))) < count and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(INTO_SECONDS)
    family: list[psutil.Process] = maker.children(recursive=True)
    return family


def servers_among(family: list[psutil.Process]) -> list[psutil.Process]:
    """Return the guards: each has one server or service below it."""
    return [process for process in family if GUARD.name in " ".join(words_of(process))]


def words_of(process: psutil.Process) -> list[str]:
    """Return a process's command line; nothing of one that has ended."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []
