"""The import rule of `.importlinter`, and that each of its contracts can fail.

Every contract is run on a copy of the packages with one forbidden import put in; the contract has to break.
"""

from __future__ import annotations

import graphlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import grimp
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


def _lint(folder: Path, *contracts: str) -> tuple[int, str]:
    run = subprocess.run(
        [LINT, CONFIGURATION, *(f"--contract={contract}" for contract in contracts), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    return run.returncode, run.stdout + run.stderr


def test_the_packages_keep_every_contract() -> None:
    """The real tree, not a copy: no contract is broken."""
    code, said = _lint(ROOT)

    assert code == 0, said
    assert f"Contracts: {len(_declared())} kept, 0 broken." in said


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


def test_a_circle_inside_a_room_is_found(packages: Path) -> None:
    """A module that imports one that imports it: the contract names the room and both."""
    seeded = packages / "flux_audit/domain/merkle.py"
    kept = seeded.read_text()
    seeded.write_text(kept + "\nimport flux_audit.domain.sealing\n")
    try:
        code, said = _lint(packages, "circles")
    finally:
        seeded.write_text(kept)

    assert code == 1
    assert "No cycles are allowed in flux_audit.domain." in said
    assert {".merkle", ".sealing"} <= set(said.split())


def test_every_contract_is_proved() -> None:
    """No contract stands without a seeded violation."""
    assert _declared() == {contract for contract, _, _ in SEEDS} | {"circles"}


def _declared() -> set[str]:
    return set(re.findall(r"^\[importlinter:contract:(.+)\]$", CONFIGURATION.read_text(), re.M))


# What the contract of circles cannot see: a module that imports its own package's `__init__`, and package and package.


@pytest.fixture
def graph() -> grimp.ImportGraph:
    """Who imports whom, module by module, of all packages."""
    names = [path.name for top in ("libs", "services") for path in ROOT.glob(f"{top}/*/src/*") if path.is_dir()]
    return grimp.build_graph(*names, cache_dir=None)


def _circle(graph: grimp.ImportGraph) -> list[str]:
    """Return one circle of modules, if there is any."""
    try:
        graphlib.TopologicalSorter({m: graph.find_modules_directly_imported_by(m) for m in graph.modules}).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_import_leads_back_to_where_it_stands(graph: grimp.ImportGraph) -> None:
    """Of no module, whatever its way; a package's `__init__` is a module."""
    circle = _circle(graph)

    assert circle == [], "Move what both need below both, or hand it in as an argument."


SEEDED_IMPORTS = [
    ("flux_common.kafka.admin", "flux_common.kafka"),
    ("flux_common.kernel.clock", "flux_client.producer"),
]


@pytest.mark.parametrize(("importer", "imported"), SEEDED_IMPORTS)
def test_a_seeded_circle_is_found(graph: grimp.ImportGraph, importer: str, imported: str) -> None:
    """One import too many: through a package's `__init__`, and between two packages."""
    graph.add_import(importer=importer, imported=imported)

    assert {importer, imported} <= set(_circle(graph))
