"""The import rule of `.importlinter`, and that each of its contracts can fail.

Every contract is run on a copy of the packages with one forbidden import put in; the contract has to break.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / ".importlinter"
LINT = ROOT / ".venv/bin/lint-imports"

SEEDS = [
    ("rooms", "flux_common/kernel/seeded.py", "import flux_common.contracts\n"),
    ("rooms", "flux_common/helpers.py", ""),
    ("rooms", "flux_common/postgres/seeded.py", "import flux_common.kafka\n"),
    ("services", "flux_ingest/seeded/__init__.py", "import flux_audit\n"),
    ("inside-services", "flux_audit/domain/seeded.py", "import flux_audit.adapters\n"),
    ("inside-services", "flux_audit/handlers/seeded.py", "import flux_audit.adapters\n"),
    ("inside-services", "flux_audit/oddments.py", ""),
    ("shipped", "flux_common/runtime/seeded.py", "import flux_devkit.ports\n"),
    ("libraries", "flux_common/runtime/seeded.py", "import flux_ingest\n"),
    ("kafka-clients", "flux_audit/handlers/seeded.py", "import aiokafka\n"),
    ("kafka-clients", "flux_common/observability/seeded.py", "from faststream.kafka import KafkaBroker\n"),
]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of every package's Python files in one folder, with a room for the seeds that need one."""
    copy = tmp_path_factory.mktemp("packages")
    for package in [path for top in ("libs", "services") for path in ROOT.glob(f"{top}/*/src/*") if path.is_dir()]:
        shutil.copytree(package, copy / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    for room in ("adapters", "domain", "handlers"):
        (copy / "flux_audit" / room).mkdir(exist_ok=True)
        (copy / "flux_audit" / room / "__init__.py").touch()
    return copy


def _lint(folder: Path, contract: str) -> tuple[int, str]:
    run = subprocess.run(
        [LINT, CONFIGURATION, "--contract", contract, "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    return run.returncode, run.stdout + run.stderr


@pytest.mark.parametrize(("contract", "place", "text"), SEEDS, ids=lambda value: value if "/" in value else "")
def test_a_contract_finds_a_seeded_import(packages: Path, contract: str, place: str, text: str) -> None:
    """Each contract breaks on the import that it forbids, and names the module."""
    seeded = packages / place
    seeded.parent.mkdir(exist_ok=True)
    seeded.write_text('"""Seeded."""\n' + text)
    try:
        code, said = _lint(packages, contract)
    finally:
        seeded.unlink()
        if seeded.parent.name == "seeded":
            shutil.rmtree(seeded.parent)

    assert code == 1
    assert place.removesuffix(".py").removesuffix("/__init__").replace("/", ".") in said.replace("\n", "")


def test_every_contract_is_proved() -> None:
    """No contract stands without a seeded violation."""
    declared = re.findall(r"^\[importlinter:contract:(.+)\]$", CONFIGURATION.read_text(), re.M)

    assert set(declared) == {contract for contract, _, _ in SEEDS}
