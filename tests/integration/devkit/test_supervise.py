"""Supervised processes end with us, whoever dies first and however."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from flux_devkit import supervise
from flux_devkit.accounts import unprivileged_account
from flux_devkit.errors import StartFailed
from flux_devkit.supervise import Launch

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(300)"]
UP = [sys.executable, "-S", "-c", "import time; print('up', flush=True); time.sleep(300)"]
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(300)
"""
FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(300)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(300)
"""
PARENT = """
import sys, time
from pathlib import Path
from flux_devkit import supervise
server = supervise.start(supervise.Launch([sys.executable, "-S", "-c", "import time; time.sleep(300)"], Path(sys.argv[1])))
print(server.pid, flush=True)
time.sleep(300)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_program_ends_with_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    """A parent that is ended by any signal, SIGKILL too, leaves no program behind."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        was_there = psutil.pid_exists(pid)
        parent.send_signal(number)
    left = supervise.wait_until_gone([pid], 10)

    assert (was_there, left) == (True, [])


def test_the_program_ends_with_its_guard(tmp_path: Path) -> None:
    """A guard that is killed takes its program along: the kernel sends the death signal."""
    server = supervise.start(Launch(SLEEP, tmp_path / "log"))
    os.kill(server.guard_pid, signal.SIGKILL)
    left = supervise.wait_until_gone([server.pid], 10)
    server.stop()

    assert left == []


@pytest.mark.skipif(unprivileged_account() is None, reason="only root can start a program as another user")
def test_the_program_of_another_user_ends_with_its_guard(tmp_path: Path) -> None:
    """The death signal survives the change of user id, which clears it if it is set before."""
    account = unprivileged_account()
    assert account is not None
    server = supervise.start(Launch(["/bin/sleep", "300"], tmp_path / "log", account=account, cwd=Path("/")))
    uid = psutil.Process(server.pid).uids().real
    os.kill(server.guard_pid, signal.SIGKILL)
    left = supervise.wait_until_gone([server.pid], 10)
    server.stop()

    assert (uid, left) == (account.uid, [])


def test_a_program_that_ignores_the_stop_signal_is_killed_after_its_grace(tmp_path: Path) -> None:
    """`stop` reports 128 + 9 for it."""
    server = supervise.start(Launch([sys.executable, "-c", STUBBORN], tmp_path / "log", grace_seconds=0.3))
    wait_for(tmp_path / "log", "deaf")

    assert server.stop() == 128 + signal.SIGKILL


def test_a_stop_wakes_a_paused_program_first(tmp_path: Path) -> None:
    """A paused program hears the stop signal: it does not have to be killed."""
    server = supervise.start(Launch(SLEEP, tmp_path / "log", grace_seconds=20))
    server.pause()
    paused = psutil.Process(server.pid).status()

    assert (paused, server.stop()) == (psutil.STATUS_STOPPED, 128 + signal.SIGTERM)


def test_what_a_killed_program_had_started_is_killed_too(tmp_path: Path) -> None:
    """Even a descendant in a session of its own cannot leave the guard, its subreaper."""
    server = supervise.start(Launch([sys.executable, "-c", FAMILY], tmp_path / "log"))
    descendant = int(wait_for(tmp_path / "log", "\n"))
    server.kill()

    assert supervise.wait_until_gone([server.pid, descendant], 1) == []


def test_the_exit_status_is_the_programs_own(tmp_path: Path) -> None:
    """`run` waits and hands the status on; output is in the log."""
    command = [sys.executable, "-c", "import sys; print('said'); sys.exit(7)"]

    assert (supervise.run(Launch(command, tmp_path / "log"), 30), supervise.tail(tmp_path / "log")) == (7, "said")


def test_run_ends_a_program_that_takes_too_long(tmp_path: Path) -> None:
    """None stands for it, and it is gone."""
    command = [sys.executable, "-c", f"import os; print(os.getpid(), flush=True)\n{STUBBORN}"]
    status = supervise.run(Launch(command, tmp_path / "log", grace_seconds=0.2), 1.0)
    pid = int((tmp_path / "log").read_text().split()[0])

    assert (status, psutil.pid_exists(pid)) == (None, False)


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """The error comes from `start`, not from a log that nobody reads."""
    with pytest.raises(StartFailed, match="/no/such/program"):
        supervise.start(Launch(["/no/such/program"], tmp_path / "log"))


def test_the_program_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    """PR_SET_PDEATHSIG speaks of threads; the guard makes it speak of processes."""
    servers: list[supervise.Supervised] = []
    thread = threading.Thread(target=lambda: servers.append(supervise.start(Launch(SLEEP, tmp_path / "log"))))
    thread.start()
    thread.join()
    time.sleep(0.2)
    alive = servers[0].alive
    servers[0].stop()

    assert alive


def test_a_held_descriptor_is_closed_only_when_the_program_has_ended(tmp_path: Path) -> None:
    """The guard keeps it open, the program does not get it: this is what makes `stack.lock` tell the truth."""
    readable, writable = os.pipe()
    server = supervise.start(Launch(UP, tmp_path / "log", hold=(writable,)))
    os.close(writable)
    wait_for(tmp_path / "log", "up")  # while an interpreter starts, it has files open of its own
    programs_files = [file.name for file in Path(f"/proc/{server.pid}/fd").iterdir()]
    os.set_blocking(readable, False)
    with pytest.raises(BlockingIOError):
        os.read(readable, 1)
    server.stop()
    os.set_blocking(readable, True)
    end = os.read(readable, 1)
    os.close(readable)

    assert (sorted(programs_files), end) == (["0", "1", "2"], b"")


def wait_for(log: Path, text: str) -> str:
    """The log's text once it contains the given one."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if log.exists() and text in (said := log.read_text()):
            return said
        time.sleep(0.02)
    raise AssertionError(f"{text!r} never came into {log}")
