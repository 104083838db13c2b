"""`make demo SOURCE=/your/folder`: the command itself, on given servers, over a folder that nobody prepared."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flux_common.postgres.migrations import LOGIN_ROLES
from flux_devkit.demo import __main__ as demo
from flux_devkit.home import write_private
from flux_devkit.plugin import ROLE_PASSWORD, FreshKafka, PostgresServer


@pytest.fixture
def given(fresh_kafka: FreshKafka, postgres_server: PostgresServer, tmp_path: Path) -> Iterator[dict[str, str]]:
    """An empty broker, for the demo's topics have no prefix, and the session's PostgreSQL with the roles' passwords."""
    for role in LOGIN_ROLES:
        path = tmp_path / "home" / "keys" / "postgres" / role
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, ROLE_PASSWORD)
    yield {
        "FLUX_HOME": str(tmp_path / "home"),
        "FLUX_KAFKA_BOOTSTRAP": fresh_kafka(heap_mib=256).bootstrap,
        "FLUX_POSTGRES_DSN": postgres_server.dsn,
        "COLUMNS": "200",
    }
    postgres_server.drop_database("flux_demo")


def test_a_folder_of_ones_own_is_shown_as_a_dataset_with_its_proof(given: dict[str, str], tmp_path: Path) -> None:
    """One wish, for whatever lies in the folder; what cannot be read is named by its code; exit status 0."""
    folder = tmp_path / "of my own"
    folder.mkdir()
    (folder / "letter.txt").write_text("The river is high and the bridge is gone.\n" * 9)
    (folder / "noise.txt").write_bytes(bytes(range(256)))
    plain = {name: value for name, value in os.environ.items() if not name.startswith("FLUX_")}
    command = [sys.executable, "-m", "flux_devkit.demo", "--source", str(folder)]
    done = subprocess.run(command, env=plain | given, capture_output=True, text=True, timeout=240)

    assert (done.returncode, done.stderr) == (0, "")
    assert "demo-own accepted" in done.stdout
    assert done.stdout.count("receipt verified") == 1
    assert "rejected: 1 TEXT_UNDECODABLE" in done.stdout
    assert "data/texts (1 rows)" in done.stdout
    assert "letter.txt" in done.stdout


def test_a_folder_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is started; exit status 2."""
    monkeypatch.setattr(sys, "argv", ["demo", "--source", "/no/such/folder"])

    assert demo.main() == 2
    assert "no folder /no/such/folder" in capsys.readouterr().out
