"""Where things are kept, and that what is kept is whole and private."""

from __future__ import annotations

import os
from pathlib import Path

from flux_devkit.home import Home, locate, try_lock, write_private
from flux_devkit.provision import provision
from flux_devkit.servers import Servers


def test_flux_home_wins_over_the_checkout(tmp_path: Path) -> None:
    """And the folders are there, keys for their owner only."""
    home = locate({"FLUX_HOME": str(tmp_path / "elsewhere")})

    assert home.root == tmp_path / "elsewhere"
    assert (home.logs.is_dir(), home.data.is_dir(), home.keys.stat().st_mode & 0o777) == (True, True, 0o700)


def test_the_pom_is_the_checkouts_own(tmp_path: Path) -> None:
    """Found from the installed package, whatever the working directory."""
    assert locate({"FLUX_HOME": str(tmp_path)}).pom.is_file()


def test_without_dev_env_nothing_is_up(tmp_path: Path) -> None:
    """No file, no variables."""
    assert Home(tmp_path, tmp_path).read_dev_env() == {}


def test_variables_are_added_and_replaced(tmp_path: Path) -> None:
    """The others stay; any text comes back as it was."""
    home = Home(tmp_path, tmp_path)
    home.write_dev_env({"FLUX_A": "1", "FLUX_B": "a b 'c' \"d\" $e # f = g"})
    home.add_to_dev_env({"FLUX_A": "2", "FLUX_C": ""})

    assert home.read_dev_env() == {"FLUX_A": "2", "FLUX_B": "a b 'c' \"d\" $e # f = g", "FLUX_C": ""}


def test_a_private_file_is_private_and_leaves_no_draft(tmp_path: Path) -> None:
    """0600, also when it replaces a wider one."""
    file = tmp_path / "secret"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, "new")

    assert (file.read_text(), file.stat().st_mode & 0o777, list(tmp_path.iterdir())) == ("new", 0o600, [file])


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    """And free again when its last descriptor is closed."""
    first = try_lock(tmp_path / "lock")
    assert first is not None
    copy = os.dup(first)
    second = try_lock(tmp_path / "lock")
    os.close(first)
    third = try_lock(tmp_path / "lock")
    os.close(copy)
    fourth = try_lock(tmp_path / "lock")
    assert fourth is not None
    os.close(fourth)

    assert (second, third) == (None, None)


def test_provisioning_steps_add_to_the_servers_own_variables(tmp_path: Path) -> None:
    """In order, each with the home and the servers."""
    home, servers = Home(tmp_path, tmp_path), Servers("k:1", "postgresql://p")
    steps = (
        lambda home, servers: {"FLUX_INGEST_DSN": f"{servers.postgres_dsn}/ingest"},
        lambda home, servers: {"FLUX_TOPIC_PREFIX": "dev."},
    )

    assert provision(home, servers, steps) == {
        "FLUX_HOME": str(tmp_path),
        "FLUX_KEYS_DIR": str(tmp_path / "keys"),
        "FLUX_KAFKA_BOOTSTRAP": "k:1",
        "FLUX_POSTGRES_DSN": "postgresql://p",
        "FLUX_INGEST_DSN": "postgresql://p/ingest",
        "FLUX_TOPIC_PREFIX": "dev.",
    }
