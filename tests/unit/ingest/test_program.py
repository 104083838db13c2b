"""The command line of ingest: what it offers, and what it says of settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flux_client.development import write_development_registry


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m flux_ingest` in an environment with these variables and no other of Flux."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FLUX_")}
    return subprocess.run(
        [sys.executable, "-m", "flux_ingest", *arguments],
        env=clean | variables, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_settings_are_explained_and_checked(tmp_path: Path) -> None:
    """With everything set the check passes, and every variable of ingest's own is explained."""
    registry = write_development_registry(tmp_path)
    checked = run(
        "check-settings",
        FLUX_KAFKA_BOOTSTRAP="127.0.0.1:9092",
        FLUX_POSTGRES_DSN="postgresql://flux_ingest@127.0.0.1:5432/flux",
        FLUX_AGENCIES_FILE=str(registry),
    )

    assert (checked.returncode, checked.stderr) == (0, "")
    assert {"FLUX_AGENCIES_FILE", "FLUX_INTAKE_BATCH_RECORDS_MAX"} <= set(checked.stdout.split())


@pytest.mark.parametrize("command", ["serve", "migrate", "check-settings"])
def test_missing_settings_end_a_command_with_2(command: str) -> None:
    """Each command says which variable is missing, and does nothing."""
    ended = run(command)

    assert ended.returncode == 2
    assert "FLUX_POSTGRES_DSN is not set" in ended.stderr
