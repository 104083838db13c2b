"""The environment of an image, made by the Dockerfile's own steps; the other three are made by `make prove-deployment`."""

from __future__ import annotations

from pathlib import Path

import pytest

from flux_devkit.errors import DevkitError
from flux_devkit.images import Builder, Image, Instruction, build, instructions
from flux_devkit.proofs.environments import faults, undeclared

SERVICE = "checkpoint"  # it is also what the jobs run from


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The environment of one service."""
    return build(SERVICE, tmp_path_factory.mktemp("image"))


@pytest.mark.slow
def test_it_holds_what_is_declared_and_its_programs_start(image: Image, tmp_path: Path) -> None:
    """Nothing undeclared, nothing missing; `check-settings` judges; `serve --help` helps; outside of the checkout."""
    assert faults(image, tmp_path) == []
    assert image.megabytes < 120


def test_what_is_undeclared_is_seen(image: Image) -> None:
    """A package of development that gets in, or another service, is named."""
    site = next(image.app.glob(".venv/lib/python3*/site-packages"))
    planted = [site / "pytest.py", site / "flux_audit"]
    planted[0].write_text("")
    planted[1].mkdir()
    (planted[1] / "__init__.py").write_text("")
    (site / "stray-1.0.dist-info").mkdir()
    (site / "stray-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: stray\nVersion: 1.0\n")

    assert set(undeclared(image)) == {"stray is not declared", "pytest can be imported", "flux_audit can be imported"}


def test_a_step_that_fails_ends_the_build(tmp_path: Path) -> None:
    """Its last lines are shown."""
    builder = Builder(SERVICE, tmp_path, tmp_path)

    with pytest.raises(DevkitError, match="RUN echo why; exit 3\nended with 3: why"):
        builder.carry_out(Instruction("build", "RUN", "echo why; exit 3"))


def test_instructions_are_read_as_docker_reads_them() -> None:
    """Lines are joined, comments are not there, and each instruction knows its stage."""
    text = "# syntax\nFROM a AS x\nRUN one \\\n    # why\n    && two\nFROM x AS y\nUSER 1:1\n"

    assert [(each.stage, each.word, each.rest) for each in instructions(text)] == [
        ("x", "FROM", "a AS x"), ("x", "RUN", "one && two"), ("y", "FROM", "x AS y"), ("y", "USER", "1:1")
    ]  # fmt: skip
