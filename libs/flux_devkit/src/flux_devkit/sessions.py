"""The working folder of one test session, and the end of those that were killed.

Theory. `.flux/tests/<process id>/` holds the session's servers and their logs. `lock` in it is held by the session
and by its servers' guards, so a folder whose lock is free belongs to nobody and the next session deletes it: a
killed session leaves its files until then, and nothing running. A session that ends in order deletes its data and
leaves its logs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from flux_devkit.home import Home, try_lock
from flux_devkit.servers import Place


@dataclass(frozen=True)
class TestSession:
    """A session's folder; `place` is for its servers."""

    __test__ = False

    folder: Path
    lock: int
    place: Place

    def close(self) -> None:
        """Delete the data (the servers have ended) and let go of the folder."""
        delete_data(self.folder / "data")
        os.close(self.lock)


def open_session(home: Home) -> TestSession:
    """A new folder, after dead sessions' folders were deleted."""
    sessions = home.root / "tests"
    sessions.mkdir(parents=True, exist_ok=True)
    delete_dead(sessions)
    folder = sessions / str(os.getpid())
    lock = try_lock(folder / "lock")
    if lock is None:
        raise RuntimeError(f"{folder} is in use by another process with this process's id")
    return TestSession(folder, lock, Place(home, folder / "data", folder / "logs", (lock,)))


def delete_dead(sessions: Path) -> None:
    """Delete the folders of sessions of which nothing runs any more."""
    for folder in sessions.iterdir():
        lock = try_lock(folder / "lock") if folder.is_dir() else None
        if lock is not None:
            delete_data(folder / "data")
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def delete_data(data: Path) -> None:
    """Delete servers' data, also where it lies elsewhere because the server's user could not reach this folder."""
    for location in data.glob("**/location"):
        with contextlib.suppress(OSError):
            shutil.rmtree(location.read_text().strip(), ignore_errors=True)
    shutil.rmtree(data, ignore_errors=True)
