"""Child processes that cannot outlive us, and that only we end.

Theory. `start` runs a program below a guard (guard.py) and hands back a `Supervised`. Its life hangs on one file
descriptor of this process: closing it, or dying, ends the program with its own stop signal, a grace, then SIGKILL.
The descriptor belongs to the process, not to a thread, so a server may be started from any thread. Signals go to
the very process that was started: psutil compares start times, so a reused process id is never hit.
A program that must be waited for (Maven, initdb) runs the same way through `run`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from flux_devkit.accounts import Account
from flux_devkit.errors import StartFailed

GUARD = Path(__file__).with_name("guard.py")


@dataclass(frozen=True)
class Launch:
    """A program to run.

    `env` replaces the whole environment if given. `stop_signal` asks for an orderly end and is followed by SIGKILL
    after `grace_seconds`; `death_signal` is the kernel's, should the guard be killed. `account` is the user to run
    as. `hold` are descriptors that the guard, not the program, keeps open until everything has ended: a lock file
    held so is free exactly when nothing runs any more.
    """

    argv: Sequence[str]
    log: Path
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    grace_seconds: float = 20.0
    account: Account | None = None
    hold: tuple[int, ...] = ()


def start(launch: Launch) -> Supervised:
    """Start the program and return at once. Raises StartFailed if it cannot be executed."""
    launch.log.parent.mkdir(parents=True, exist_ok=True)
    lifeline_read, lifeline = os.pipe()
    report, report_write = os.pipe()
    try:
        guard = _start_guard(launch, lifeline_read, report_write)
    except BaseException:
        os.close(lifeline)
        os.close(report)
        raise
    finally:
        os.close(lifeline_read)
        os.close(report_write)
    return _supervise(launch, guard, lifeline, report)


def run(launch: Launch, timeout_seconds: float) -> int | None:
    """Run the program to its end and return its exit status; None if it was ended for taking too long."""
    supervised = start(launch)
    try:
        return supervised.wait(timeout_seconds)
    finally:
        supervised.stop()


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log, for an error message; a line that says so if there is none."""
    with contextlib.suppress(OSError):
        text = "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
        return text or f"({log} is empty)"
    return f"({log} does not exist)"


def _start_guard(launch: Launch, lifeline: int, report: int) -> subprocess.Popen[bytes]:
    options = {
        "argv": [str(part) for part in launch.argv],
        "log": str(launch.log),
        "cwd": str(launch.cwd) if launch.cwd else None,
        "lifeline": lifeline,
        "report": report,
        "stop_signal": int(launch.stop_signal),
        "death_signal": int(launch.death_signal),
        "grace_seconds": launch.grace_seconds,
        "uid": launch.account.uid if launch.account else None,
        "gid": launch.account.gid if launch.account else None,
    }
    with launch.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARD), json.dumps(options)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(lifeline, report, *launch.hold),
            env=dict(launch.env) if launch.env is not None else None, start_new_session=True,
        )  # fmt: skip


def _supervise(launch: Launch, guard: subprocess.Popen[bytes], lifeline: int, report: int) -> Supervised:
    with os.fdopen(report) as pipe:
        line = pipe.readline()
    answer = json.loads(line) if line else {"error": f"the guard died: {tail(launch.log)}"}
    if "error" in answer:
        os.close(lifeline)
        guard.wait()
        raise StartFailed(f"cannot run {answer['error']}")
    return Supervised(launch, guard, lifeline, int(answer["pid"]))


class Supervised:
    """A running program below its guard. Not thread-safe; an object per program, a program per object."""

    def __init__(self, launch: Launch, guard: subprocess.Popen[bytes], lifeline: int, pid: int) -> None:
        self.launch = launch
        self.pid = pid
        self._guard = guard
        self._lifeline: int | None = lifeline
        self._process: psutil.Process | None = None
        with contextlib.suppress(psutil.NoSuchProcess):  # it may have ended already
            self._process = psutil.Process(pid)

    @property
    def guard_pid(self) -> int:
        """Process id of the guard, the program's parent."""
        return self._guard.pid

    @property
    def alive(self) -> bool:
        """Whether the program, or anything that it left behind, still runs."""
        return self._guard.poll() is None

    def wait(self, timeout_seconds: float) -> int | None:
        """Wait for the end; the exit status (128 + n after signal n), or None when the time is over."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._guard.wait(timeout_seconds)
        return None

    def request_stop(self) -> None:
        """Ask for an orderly end and return at once."""
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

    def send_signal(self, number: signal.Signals) -> None:
        """Send the program a signal at once, past the guard: whatever asks it something next comes after the signal."""
        if self._process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._process.send_signal(number)

    def stop(self) -> int:
        """End the program in order, by force after its grace, and return its exit status."""
        self.request_stop()
        status = self.wait(self.launch.grace_seconds + 10)
        if status is None:  # the guard itself hangs or is stopped; the kernel then ends the program
            self._guard.kill()
            status = self._guard.wait()
        return status

    def kill(self) -> None:
        """SIGKILL, as a crash would; returns when nothing of the program is left."""
        if self._process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._process.kill()
        self.stop()

    def pause(self) -> None:
        """SIGSTOP the program, then all its descendants (a stopped program starts no more); returns when all stand."""
        if self._process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._process.suspend()
            descendants = self._descendants()
            for process in descendants:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.suspend()
            _wait_until_stopped([self._process, *descendants])

    def resume(self) -> None:
        """SIGCONT all descendants of the program, then the program."""
        if self._process is not None:
            for process in [*self._descendants(), self._process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    def _descendants(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return self._process.children(recursive=True) if self._process else []
        return []


def _wait_until_stopped(processes: Sequence[psutil.Process], timeout_seconds: float = 5.0) -> None:
    """The kernel stops a process some time after the signal; one in the middle of disk I/O may take its time."""
    deadline = time.monotonic() + timeout_seconds
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            while process.status() != psutil.STATUS_STOPPED and time.monotonic() < deadline:
                time.sleep(0.005)


def wait_until_gone(pids: Sequence[int], timeout_seconds: float) -> list[int]:
    """Wait for processes that are not our children; the ones still there when the time is over."""
    deadline = time.monotonic() + timeout_seconds
    left = [pid for pid in pids if psutil.pid_exists(pid)]
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [pid for pid in left if psutil.pid_exists(pid)]
    return left
