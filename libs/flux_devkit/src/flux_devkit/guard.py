"""One server's guard: it ends the server when whoever started it is gone, whatever the reason.

Theory. A parent that is killed with SIGKILL can clean up nothing, so the cleaning is somebody else's task. Each
server runs below a guard of its own, a small process that
- holds the read end of the **lifeline**, a pipe whose only write end is in the parent: end of file means that the
  parent asked for a stop or is dead, with no process id to be mistaken for a reused one;
- is the server's parent and the *subreaper* of its descendants, so that no orphan can leave it: when the server
  has ended, for any reason, what it left behind is killed before the guard exits;
- sits in a session of its own, so that Ctrl-C on a terminal reaches the parent alone.
Should the guard itself be killed, the kernel sends the server its death signal (PR_SET_PDEATHSIG). That setting is
lost on a change of user id, so it is made after the change. Where the kernel has no such call (not Linux) only the
lifeline protects.

The guard's exit status is the server's, or 128 + n for a server ended by signal n. Standard library only and run as
a file (`python -I -S guard.py OPTIONS`), so that it starts in some hundredths of a second.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Options:
    """What to run and how to end it; travels as one JSON argument."""

    argv: list[str]
    log: str
    cwd: str | None
    lifeline: int
    report: int
    stop_signal: int
    death_signal: int
    grace_seconds: float
    uid: int | None
    gid: int | None


def main() -> int:
    """Run the server of the given options until it ends or the lifeline does."""
    options = Options(**json.loads(sys.argv[1]))
    wake = wake_on_signals()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    child = spawn(options)
    if child is None:
        return 127
    status = watch(child, wake, options)
    sweep()
    return status


def wake_on_signals() -> int:
    """A descriptor that becomes readable on SIGCHLD and SIGTERM, so that one `select` waits for everything."""
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    return readable


def spawn(options: Options) -> int | None:
    """Start the server and report its process id, or report why it did not start."""
    log = os.open(options.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        child = subprocess.Popen(
            options.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=options.cwd, start_new_session=True,
            preexec_fn=death_signal_setter(options.death_signal),
            user=options.uid, group=options.gid, extra_groups=None if options.uid is None else [],
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        report(options, {"error": f"{options.argv[0]}: {error}"})
        return None
    finally:
        os.close(log)
    report(options, {"pid": child.pid})
    child.returncode = 0  # this module reaps by itself; Popen must not try
    return child.pid


def death_signal_setter(number: int) -> Callable[[], None]:
    """A function for the child to call between fork (and setuid) and exec."""
    guard = os.getpid()

    def set_death_signal() -> None:
        prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != guard:  # the guard died before the call: nobody would ever send the signal
            os._exit(1)

    return set_death_signal


def prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def report(options: Options, message: dict[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(options.report, json.dumps(message).encode() + b"\n")
    os.close(options.report)


def watch(child: int, wake: int, options: Options) -> int:
    """Wait for the server's end; when the lifeline ends first (or SIGTERM comes), stop the server."""
    while True:
        ready, _, _ = select.select([options.lifeline, wake], [], [])
        told_to_stop = options.lifeline in ready or drain(wake)
        status = reap(child)
        if status is not None:
            return status
        if told_to_stop:
            return stop(child, wake, options)


def drain(wake: int) -> bool:
    """Empty the wake descriptor; true if SIGTERM was among the signals."""
    with contextlib.suppress(BlockingIOError):
        return signal.SIGTERM in os.read(wake, 4096)
    return False


def reap(child: int) -> int | None:
    """Collect every ended descendant; the server's status if it was one of them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                found = code if code >= 0 else 128 - code
    return found


def stop(child: int, wake: int, options: Options) -> int:
    """Ask the server to end, wait out its grace, then kill it."""
    for pid in (child, *descendants(child)):
        send(pid, signal.SIGCONT)  # a paused server could not hear the request
    send(child, options.stop_signal)
    deadline = time.monotonic() + options.grace_seconds
    while (left := deadline - time.monotonic()) > 0:
        select.select([wake], [], [], left)
        drain(wake)
        status = reap(child)
        if status is not None:
            return status
    send(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def sweep() -> None:
    """Kill what the server left behind: orphans come to this subreaper, generation by generation."""
    while orphans := children_of().get(os.getpid()):
        for pid in orphans:
            send(pid, signal.SIGKILL)
        for pid in orphans:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def descendants(pid: int) -> list[int]:
    children = children_of()
    found = list(children.get(pid, []))
    for each in found:
        found.extend(children.get(each, []))  # a list may grow while it is walked: this is the walk
    return found


def children_of() -> dict[int, list[int]]:
    """Parent to children, from one pass over /proc; empty where there is none."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = stat.read_bytes().rpartition(b")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(stat.parent.name))
    return children


if __name__ == "__main__":
    sys.exit(main())
