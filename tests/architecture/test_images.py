"""The Dockerfile, as far as it can be judged without an engine, and the wheels that it installs."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from flux_devkit.images import instructions

ROOT = Path(__file__).parents[2]
READ = list(instructions((ROOT / "Dockerfile").read_text()))
SERVICES = sorted(path.parent.name for path in ROOT.glob("services/*/pyproject.toml"))
SHIPPED = ["libs/flux_common", *(f"services/{service}" for service in SERVICES)]


def _of(stage: str, word: str) -> list[str]:
    return [each.rest for each in READ if (each.stage, each.word) == (stage, word)]


def test_every_service_has_an_entry_point_in_exec_form() -> None:
    """Each service's stage runs `python -m flux_<service>` without a shell, so that signals reach the process."""
    entries = {each.stage: each.rest for each in READ if each.word == "ENTRYPOINT"}

    assert entries == {f"run-{service}": f'["python", "-m", "flux_{service}"]' for service in SERVICES}
    assert _of("service", "FROM") == ["run-${SERVICE} AS service"]
    assert _of("service", "CMD") == ['["serve"]']


def test_the_image_holds_the_environment_and_nothing_else() -> None:
    """The stages that make up the image copy `.venv` alone and run nothing; the user is a number, and not root's."""
    stages = ["runtime", *(f"run-{service}" for service in SERVICES), "service"]

    assert [copied for stage in stages for copied in _of(stage, "COPY")] == ["--from=build /app/.venv /app/.venv"]
    assert [command for stage in stages for command in _of(stage, "RUN")] == []
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", _of("runtime", "USER")[0])


def test_everything_that_is_installed_is_pinned_by_hash() -> None:
    """No command can take a package whose hash the locks do not name, the builder's own tools included."""
    commands = [part for run in _of("build", "RUN") for part in re.split(r"&&|\|\||;", run)]
    installing = [part for part in commands if re.search(r"pip (install|sync)|uv build", part)]

    assert len(installing) == 4
    assert [part for part in installing if not re.search(r"--require-hashes|--no-index", part)] == []


def test_dependencies_are_a_layer_before_the_source() -> None:
    """A change of the source leaves the layer of the dependencies alone."""
    order = [f"{each.word} {each.rest}" for each in READ if each.stage == "build"]
    synced = next(i for i, line in enumerate(order) if "pip sync" in line)
    sources = [i for i, line in enumerate(order) if line.startswith("COPY") and re.search("libs|services", line)]

    assert sources
    assert synced < min(sources)
    assert any("UV_COMPILE_BYTECODE=1" in line for line in order)


def test_what_the_build_copies_is_let_through_and_no_more() -> None:
    """`.dockerignore` shuts everything out, lets through what the Dockerfile copies, and nothing private."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    opened = [line.removeprefix("!") for line in lines if line.startswith("!")]
    copied = {rest.split()[0].replace("${SERVICE}", each) for rest in _of("build", "COPY") for each in SERVICES}
    needed = {file.relative_to(ROOT).as_posix() for source in copied for file in _files_for_a_wheel(ROOT / source)}

    assert lines[0] == "*"
    assert len(needed) > len(SHIPPED) * 10
    assert [file for file in needed if not any(fnmatch(file, o) or fnmatch(file, f"{o}/*") for o in opened)] == []
    assert [o for o in opened if not o.startswith(("requirements/", "libs/flux_common/", "services/*/"))] == []


def _files_for_a_wheel(path: Path) -> Iterator[Path]:
    """Yield `path`, or if it is a package's folder, its pyproject and everything under `src`."""
    if path.is_file():
        yield path
        return
    yield path / "pyproject.toml"
    yield from (f for f in (path / "src").rglob("*") if f.is_file() and "__pycache__" not in f.parts)


def test_labels_are_those_of_oci() -> None:
    """An image says what it is, of which version and revision, and under which licence."""
    labels = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", _of("service", "LABEL")[0]))

    assert {"title", "description", "version", "revision", "licenses"} <= labels


@pytest.mark.parametrize("folder", SHIPPED)
def test_a_wheel_holds_everything_that_the_package_needs(folder: str, tmp_path: Path) -> None:
    """Statements, migrations and type markers are in the wheel, not only in the checkout."""
    source = ROOT / folder / "src"
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT / folder, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {
        path.relative_to(source).as_posix() for path in _files_for_a_wheel(ROOT / folder) if path.is_relative_to(source)
    }

    assert wanted - packed == set()
