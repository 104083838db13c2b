"""Servers and services that stay after the command that started them: `up`, `down`, `status`.

Theory. `up` starts a background process (this module run as a program) that owns the stack: the servers' lifelines
end in it, so ending it ends them, however it ends. `stack.lock` is the one authority on whether anything runs. The
background process takes it and each guard holds a copy, so it is free exactly when nothing of ours runs any more,
also after a SIGKILL of any of them. `stack.json` says which process to ask for the end; it is believed only together
with a held lock and an equal start time, so a reused process id is never signalled.

Two pipes join `up` to the background process until the stack stands: one brings progress, the other is a lifeline.
When `up` dies or is interrupted half-way, the lifeline ends and the background process takes everything down. Once
the stack stands, `up` says so through it and lets go.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

import psutil

from flux_devkit.errors import DevkitError
from flux_devkit.home import Home, Say, locate, quiet, try_lock, write_private
from flux_devkit.provision import development_installation, provision, services_wanted
from flux_devkit.services import Services
from flux_devkit.stack import Stack, development_place
from flux_devkit.supervise import tail

STOP_TIMEOUT_SECONDS = 60.0
RELEASE = b"stands"


@dataclass(frozen=True)
class Status:
    """Whether the background process runs, its id, and the variables of `dev.env`."""

    running: bool
    pid: int | None
    variables: dict[str, str]


def up(home: Home, say: Say = quiet) -> bool:
    """Start the stack in the background; True if it was started, False if it stood already.

    Raises DevkitError with the reason if it does not come up; nothing is left running then, nor after Ctrl-C.
    """
    if status(home).running:
        return False
    lifeline_read, lifeline = os.pipe()
    progress, progress_write = os.pipe()
    with os.fdopen(progress) as lines:
        try:
            _start_background(home, lifeline_read, progress_write)
            _follow(lines, say, home)
            os.write(lifeline, RELEASE)
        except BaseException:
            os.close(lifeline)
            lines.read()  # ends when the background process has, and that is when it has taken everything down
            raise
        os.close(lifeline)
    return True


def down(home: Home) -> bool:
    """End what `up` started; True if there was something. Raises DevkitError if it does not end in time."""
    process = _background_process(home)
    if process is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    elif _is_free(home):
        _forget(home)
        return False
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    while not _is_free(home):
        if time.monotonic() > deadline:
            raise DevkitError(f"the stack does not end; see {home.logs / 'stack.log'}")
        time.sleep(0.05)
    _forget(home)
    return True


def status(home: Home) -> Status:
    """What runs now. Files that a killed process left behind are not believed."""
    process = _background_process(home)
    if process is None:
        return Status(False, None, {})
    return Status(home.dev_env.exists(), process.pid, home.read_dev_env())


def _start_background(home: Home, lifeline: int, progress: int) -> None:
    """Start the background process, which at once leaves us: it is nobody's child to be waited for."""
    try:
        with (home.logs / "stack.log").open("ab") as output:
            subprocess.run(
                [sys.executable, "-m", "flux_devkit.background", str(lifeline), str(progress)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=(lifeline, progress),
                env={**os.environ, "FLUX_HOME": str(home.root)}, start_new_session=True, check=True,
            )  # fmt: skip
    finally:
        os.close(lifeline)
        os.close(progress)


def _follow(lines: Iterator[str], say: Say, home: Home) -> None:
    """Pass progress on until the stack stands. Raises DevkitError if it does not come up."""
    for line in lines:
        message = json.loads(line)
        if "error" in message:
            raise DevkitError(message["error"])
        if "stands" in message:
            return
        say(message["say"])
    raise DevkitError(f"the background process ended; {home.logs / 'stack.log'} ends:\n{tail(home.logs / 'stack.log')}")


def _background_process(home: Home) -> psutil.Process | None:
    """The process that `stack.json` names, if the lock is held and it is the very same process."""
    file = home.root / "stack.json"
    if _is_free(home) or not file.exists():
        return None
    recorded = json.loads(file.read_text())
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(recorded["pid"])
        same = abs(process.create_time() - recorded["created"]) < 1.0
        if same and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def _is_free(home: Home) -> bool:
    descriptor = try_lock(home.root / "stack.lock")
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


def _forget(home: Home) -> None:
    for file in (home.dev_env, home.root / "stack.json"):
        file.unlink(missing_ok=True)


# The background process.


def main(lifeline: int, progress: int) -> int:
    """Own the stack until SIGTERM. Exit status 1 if it did not come up."""
    home = locate()
    signal.signal(signal.SIGTERM, _raise_exit)
    watch = threading.Thread(target=_end_with_up, args=(lifeline,), daemon=True)
    watch.start()
    report = Report(progress)
    try:
        lock = _take_lock(home)
        _own(home, lock, report)
    except DevkitError as error:
        report.send(error=str(error))
        return 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return 0


class Report:
    """The writing end of the progress pipe; silent once nobody reads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def send(self, **message: str) -> None:
        """Send one message, and note it in the log."""
        sys.stdout.write("".join(f"{text}\n" for text in message.values()))
        sys.stdout.flush()
        with contextlib.suppress(BrokenPipeError):
            os.write(self._descriptor, json.dumps(message).encode() + b"\n")


def _own(home: Home, lock: int, report: Report) -> None:
    me = psutil.Process()
    write_private(home.root / "stack.json", json.dumps({"pid": me.pid, "created": me.create_time()}))
    stack = Stack(development_place(home, (lock,), lambda line: report.send(say=line)))
    services: Services | None = None
    try:
        servers = stack.start()
        variables = provision(home, servers)
        if services_wanted():
            report.send(say="starting ingest, checkpoint, transform and audit")
            services = Services(development_installation(home, servers).services(), home.logs)
            services.start()
        home.write_dev_env(variables)
        report.send(stands="up")
        while True:
            signal.pause()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second request must not interrupt the first
        _forget(home)
        if services is not None:
            services.stop()
        stack.stop()


def _take_lock(home: Home) -> int:
    """The lock; servers of a killed predecessor are given the time to end."""
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    while (descriptor := try_lock(home.root / "stack.lock")) is None:
        if _background_process(home) is not None:
            raise DevkitError("another `up` is at work; call: flux-dev status")
        if time.monotonic() > deadline:
            raise DevkitError("servers of an earlier stack do not end; call: flux-dev down")
        time.sleep(0.05)
    os.set_inheritable(descriptor, False)
    return descriptor


def _end_with_up(lifeline: int) -> None:
    """Until the stack stands its life hangs on `up`: the end of the pipe without the word is its death."""
    if os.read(lifeline, len(RELEASE)) != RELEASE:
        os.kill(os.getpid(), signal.SIGTERM)


def _raise_exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    if os.fork():
        os._exit(0)
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
