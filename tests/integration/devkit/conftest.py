"""A home of its own for each test, with the shared jars, and a look at the machine's processes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flux_devkit import jars
from flux_devkit.home import Home, locate
from flux_devkit.sessions import delete_data


@pytest.fixture
def home(tmp_path: Path, flux_home: Home) -> Iterator[Home]:
    """A fresh home below the test's own folder."""
    installed = jars.install(flux_home)
    fresh = locate({"FLUX_HOME": str(tmp_path / "home")})
    (fresh.root / installed.folder.name).symlink_to(installed.folder)
    yield fresh
    delete_data(fresh.data)


class Processes:
    """The processes that name any of the given folders on their command line."""

    def __init__(self, *folders: Path) -> None:
        self._folders = folders

    def ids(self) -> set[int]:
        """Their ids now; a zombie has no command line and does not count."""
        places = [*map(str, self._folders), *self._stand_ins()]
        found = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if any(place in line for place in places):
                    found.add(process.pid)
        return found

    def wait_gone(self, seconds: float = 30) -> set[int]:
        """Those still there after they had time to end."""
        deadline = time.monotonic() + seconds
        while (left := self.ids()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def _stand_ins(self) -> list[str]:
        return [file.read_text().strip() for folder in self._folders for file in folder.rglob("location")]


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    """The processes that belong to this test."""
    return Processes(tmp_path)
