"""The fixtures that every suite stands on, and the end of sessions that were killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil

from flux_devkit.home import Home
from flux_devkit.plugin import Database, PostgresServer
from flux_devkit.postgres import answers
from flux_devkit.sessions import delete_dead, open_session

seen: list[tuple[str, str]] = []


def test_each_test_has_names_of_its_own(database: Database, topic_prefix: str) -> None:
    """First of two: remembers its names."""
    seen.append((database.name, topic_prefix))

    assert (answers(database.dsn), topic_prefix[-1]) == (True, ".")


def test_and_the_next_test_has_others(database: Database, topic_prefix: str, postgres_server: PostgresServer) -> None:
    """Second of two: other names, and the first one's database is gone."""
    for name, prefix in seen:
        assert (database.name != name, topic_prefix != prefix) == (True, True)
        assert not answers(postgres_server.dsn_for(name))


def test_a_dsn_for_another_login_is_quoted() -> None:
    """A password may hold any character."""
    database = Database("d", "postgresql://postgres:secret@127.0.0.1:5432/d")

    assert database.dsn_as("flux_ingest", "a/b@c") == "postgresql://flux_ingest:a%2Fb%40c@127.0.0.1:5432/d"


def test_a_killed_session_leaves_nothing_running_and_the_next_deletes_its_files(home: Home, tmp_path: Path) -> None:
    """SIGKILL of pytest in the middle of a test that uses both servers."""
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "test_hangs.py").write_text(
        textwrap.dedent("""
            import time
            def test_hangs(kafka_bootstrap, postgres_server, flux_session):
                print("SERVING", flux_session.folder, flush=True)
                time.sleep(300)
        """)
    )
    env = {**os.environ, "FLUX_HOME": str(home.root), "FLUX_STACK": "embedded"}
    command = [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", "--rootdir", str(suite), str(suite)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as pytest_process:
        assert pytest_process.stdout is not None
        line = next(line for line in pytest_process.stdout if "SERVING" in line)
        family = psutil.Process(pytest_process.pid).children(recursive=True)
        names = {process.name() for process in family}
        pytest_process.send_signal(signal.SIGKILL)
    folder = Path(line.split()[-1])
    _, alive = psutil.wait_procs(family, timeout=40)
    left_files = folder.exists()
    delete_dead(folder.parent)

    assert ({"java", "postgres"} <= names, alive) == (True, [])
    assert (left_files, folder.exists()) == (True, False)


def test_a_living_sessions_files_stay(home: Home) -> None:
    """Its lock is held."""
    session = open_session(home)
    delete_dead(session.folder.parent)
    kept = session.folder.exists()
    session.close()
    delete_dead(session.folder.parent)

    assert (kept, session.folder.exists()) == (True, False)
