"""`flux-dev oracle`: the same verdict, as text and as an exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flux_devkit.oracle import INVARIANTS

if TYPE_CHECKING:
    from conftest import Rest


def oracle(rest: Rest, home: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the command on the installation at rest."""
    installation = rest.installation
    servers = {
        "FLUX_HOME": str(home),
        "FLUX_KAFKA_BOOTSTRAP": installation.servers.kafka_bootstrap,
        "FLUX_POSTGRES_DSN": installation.servers.postgres_dsn,
    }
    named = ["--database", installation.database, "--topic-prefix", installation.topic_prefix]
    command = [sys.executable, "-m", "flux_devkit.cli", "oracle", *named, *more]
    return subprocess.run(command, env={**os.environ, **servers}, capture_output=True, text=True, check=False)


def test_the_exit_status_is_the_verdict(rest: Rest, tmp_path: Path) -> None:
    """What the library finds, the command finds, and says so for each invariant."""
    done = oracle(rest, tmp_path, "--settled")

    assert (done.returncode, done.stderr) == (1 if rest.found else 0, "")
    assert [name for name in INVARIANTS if f"  {name} " not in done.stdout] == []


def test_a_violation_makes_the_status_one(rest: Rest, tmp_path: Path) -> None:
    """The agencies that are not named are strangers with rows."""
    done = oracle(rest, tmp_path, "--agency", "nasa", "--no-files")

    assert done.returncode == 1
    assert "FAILED  I5" in done.stdout
