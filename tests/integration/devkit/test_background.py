"""`flux-dev up` leaves a stack that stays, or nothing at all."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from flux_devkit import background
from flux_devkit.errors import DevkitError
from flux_devkit.home import Home, try_lock
from flux_devkit.kafka import answering_brokers
from flux_devkit.plugin import FreshKafka
from flux_devkit.postgres import answers, create_database, dsn_for

from .conftest import Processes

UP = [sys.executable, "-m", "flux_devkit.cli", "up"]


@pytest.fixture
def stack_home(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home whose stack is embedded, and is down when the test ends."""
    for name in ("FLUX_KAFKA_BOOTSTRAP", "FLUX_POSTGRES_DSN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLUX_STACK", "embedded")
    monkeypatch.setenv("FLUX_UP", "servers")  # what is proved here is true of whatever hangs on the background process
    monkeypatch.setenv("FLUX_HOME", str(home.root))
    yield home
    background.down(home)


def test_up_stays_and_down_ends_exactly_it(stack_home: Home, processes: Processes) -> None:
    """The servers answer after the command has ended; `down` leaves no process and no dev.env."""
    done = subprocess.run(UP, capture_output=True, text=True)
    variables = stack_home.read_dev_env()
    answered = (
        answering_brokers({"bootstrap.servers": variables["FLUX_KAFKA_BOOTSTRAP"]}, 10),
        answers(variables["FLUX_POSTGRES_DSN"]),
    )
    was_up = background.down(stack_home)

    assert (done.returncode, done.stderr, answered, was_up) == (0, "", (1, True), True)
    assert (processes.ids(), stack_home.dev_env.exists()) == (set(), False)


def test_the_password_is_not_shown(stack_home: Home) -> None:
    """It is in dev.env, which only its owner reads."""
    shown = subprocess.run(UP, capture_output=True, text=True).stdout
    dsn = stack_home.read_dev_env()["FLUX_POSTGRES_DSN"]
    password = dsn.split(":")[2].split("@")[0]

    assert (password in shown, stack_home.dev_env.stat().st_mode & 0o777) == (False, 0o600)


def test_a_shell_can_source_dev_env(stack_home: Home) -> None:
    """KEY=VALUE lines, quoted where need be, also those that others add."""
    stack_home.write_dev_env({"FLUX_A": "plain"})
    stack_home.add_to_dev_env({"FLUX_B": "it's $HOME & more"})
    script = f'. {shlex.quote(str(stack_home.dev_env))}; printf "%s|%s" "$FLUX_A" "$FLUX_B"'
    printed = subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout

    assert (printed, stack_home.read_dev_env()["FLUX_B"]) == ("plain|it's $HOME & more", "it's $HOME & more")


def test_up_twice_is_fine_and_data_survive_down(stack_home: Home) -> None:
    """A second `up` starts nothing; addresses and databases are the same after `down` and `up`."""
    first = background.up(stack_home)
    second = background.up(stack_home)
    before = stack_home.read_dev_env()
    create_database(before["FLUX_POSTGRES_DSN"], "kept")
    background.down(stack_home)
    background.up(stack_home)
    after = stack_home.read_dev_env()

    assert (first, second, after) == (True, False, before)
    assert answers(dsn_for(after["FLUX_POSTGRES_DSN"], "kept"))


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("", signal.SIGINT),
        ("starting PostgreSQL", signal.SIGINT),
        ("starting Kafka", signal.SIGINT),
        ("PostgreSQL answers", signal.SIGINT),
        ("starting PostgreSQL", signal.SIGKILL),
        ("starting Kafka", signal.SIGKILL),
    ],
)
def test_an_up_ended_half_way_leaves_nothing_and_the_next_works(
    stack_home: Home, processes: Processes, moment: str, number: signal.Signals
) -> None:
    """Ctrl-C or SIGKILL of `up` at any moment; nothing runs, nothing is locked, and `up` works again."""
    interrupt_up(moment, number)
    free = becomes_free(stack_home)
    left = processes.ids()
    again = background.up(stack_home)

    assert (left, free, again, background.status(stack_home).running) == (set(), True, True, True)


def test_a_killed_background_process_takes_its_servers_along(stack_home: Home, processes: Processes) -> None:
    """SIGKILL of it: nothing runs, `status` says so in spite of the files left, and `up` works again."""
    background.up(stack_home)
    pid = background.status(stack_home).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    becomes_free(stack_home)
    left = processes.ids()
    seen = background.status(stack_home)
    again = background.up(stack_home)

    assert (left, seen.running, seen.pid, again) == (set(), False, None, True)


def test_a_second_up_right_after_a_kill_waits_for_the_old_servers(stack_home: Home) -> None:
    """The lock is free only when the last server has ended, so two servers never share their data."""
    background.up(stack_home)
    pid = background.status(stack_home).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while background.status(stack_home).pid is not None:
        time.sleep(0.01)
    still_held = not is_free(stack_home)

    assert still_held
    assert (background.up(stack_home), answers(stack_home.read_dev_env()["FLUX_POSTGRES_DSN"])) == (True, True)


def test_a_reused_process_id_is_never_signalled(stack_home: Home) -> None:
    """`stack.json` names a process with another start time: it is left alone, even while the lock is held."""
    lock = try_lock(stack_home.root / "stack.lock")
    assert lock is not None
    with subprocess.Popen(["/bin/sleep", "60"]) as stranger:
        record = f'{{"pid": {stranger.pid}, "created": {psutil.Process(stranger.pid).create_time() - 100}}}'
        (stack_home.root / "stack.json").write_text(record)
        pid = background.status(stack_home).pid
        os.close(lock)
        was_up = background.down(stack_home)
        alive = stranger.poll() is None
        stranger.kill()

    assert (pid, was_up, alive) == (None, False, True)


def test_without_java_up_fails_with_one_clear_line(stack_home: Home, processes: Processes) -> None:
    """The error reaches the command, and nothing is left running."""
    done = subprocess.run(UP, capture_output=True, text=True, env={**os.environ, "PATH": ""})

    assert done.returncode == 1
    assert "needs Java >= 17, and there is none" in done.stderr
    assert "Traceback" not in done.stderr
    assert processes.wait_gone() == set()


def test_given_servers_are_used_and_left_alone(
    stack_home: Home, fresh_kafka: FreshKafka, fresh_postgres: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`up` and `down` with both servers given start and stop neither; not the session's, for `up` sets roles' passwords."""
    kafka_bootstrap, dsn = fresh_kafka().bootstrap, fresh_postgres().dsn
    monkeypatch.setenv("FLUX_KAFKA_BOOTSTRAP", kafka_bootstrap)
    monkeypatch.setenv("FLUX_POSTGRES_DSN", dsn)
    background.up(stack_home)
    variables = stack_home.read_dev_env()
    background.down(stack_home)

    assert (variables["FLUX_KAFKA_BOOTSTRAP"], variables["FLUX_POSTGRES_DSN"]) == (kafka_bootstrap, dsn)
    assert (answering_brokers({"bootstrap.servers": kafka_bootstrap}, 10), answers(dsn)) == (1, True)


def test_a_shell_that_sourced_dev_env_can_call_up_again(stack_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The addresses in its environment are our own servers', which are down: they are started, not asked."""
    background.up(stack_home)
    variables = stack_home.read_dev_env()
    background.down(stack_home)
    for name in ("FLUX_KAFKA_BOOTSTRAP", "FLUX_POSTGRES_DSN"):
        monkeypatch.setenv(name, variables[name])

    assert (background.up(stack_home), stack_home.read_dev_env()) == (True, variables)


def test_a_given_server_that_is_down_is_named(stack_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable and what to do."""
    monkeypatch.setenv("FLUX_POSTGRES_DSN", "postgresql://nobody:secret@127.0.0.1:1/none")
    with pytest.raises(DevkitError, match="FLUX_POSTGRES_DSN fails; start that server or unset") as refused:
        background.up(stack_home)

    assert "secret" not in str(refused.value)


def test_status_and_logs_speak_of_the_stack(stack_home: Home) -> None:
    """Exit status 3 when nothing is up, 0 when it is; the logs are the servers' own."""
    flux_dev = UP[:-1]
    before = subprocess.run([*flux_dev, "status"], capture_output=True, text=True)
    background.up(stack_home)
    after = subprocess.run([*flux_dev, "status"], capture_output=True, text=True)
    logs = subprocess.run([*flux_dev, "logs", "-n", "400"], capture_output=True, text=True)
    unknown = subprocess.run([*flux_dev, "logs", "nothing"], capture_output=True, text=True)

    assert (before.returncode, after.returncode, logs.returncode, unknown.returncode) == (3, 0, 0, 1)
    assert "database system is ready to accept connections" in logs.stdout
    assert "Kafka Server started" in logs.stdout


def test_wipe_deletes_the_data(stack_home: Home) -> None:
    """After `down --wipe` the next `up` begins anew."""
    background.up(stack_home)
    create_database(stack_home.read_dev_env()["FLUX_POSTGRES_DSN"], "kept")
    done = subprocess.run([*UP[:-1], "down", "--wipe"], capture_output=True, text=True)
    background.up(stack_home)

    assert done.returncode == 0
    assert not answers(dsn_for(stack_home.read_dev_env()["FLUX_POSTGRES_DSN"], "kept"))


def interrupt_up(moment: str, number: signal.Signals) -> None:
    """Start `up`, and signal it as soon as it says the given words (or at once)."""
    with subprocess.Popen(UP, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as command:
        assert command.stdout is not None
        if moment:
            for line in command.stdout:
                if moment in line:
                    break
        else:
            time.sleep(0.6)
        command.send_signal(number)
        command.stdout.read()


def becomes_free(home: Home) -> bool:
    """Whether the stack's lock becomes free within a minute: the one sign that nothing runs."""
    deadline = time.monotonic() + 60
    while not (free := is_free(home)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return free


def is_free(home: Home) -> bool:
    lock = try_lock(home.root / "stack.lock")
    if lock is not None:
        os.close(lock)
    return lock is not None
