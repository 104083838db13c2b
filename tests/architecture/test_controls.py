"""docs/fedramp.md: every control that is asked for has a mechanism, and a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/fedramp.md").read_text()
ASKED = [
    "AC-3", "AC-4", "AC-6", "AU-2", "AU-3", "AU-5", "AU-8", "AU-9", "AU-9(2)", "AU-9(3)", "AU-10", "AU-11", "AU-12",
    "CM-6", "CP-9", "CP-10", "IA-5", "IA-8", "SC-5", "SC-7", "SC-8", "SC-12", "SC-13", "SC-28",
    "SI-4", "SI-7", "SI-10", "SI-11",
]  # fmt: skip
ROWS = {
    cells[0].split()[0]: cells
    for line in DOCUMENT.splitlines()
    if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 4 and re.match(r"[A-Z]{2}-\d", cells[0])
}


def named_tests(cell: str) -> list[tuple[str, str]]:
    """Return file and function of every test that a cell names."""
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", cell)


def exists(file: str, test: str) -> bool:
    """Tell whether a file defines a test."""
    path = ROOT / file
    found = ast.walk(ast.parse(path.read_text())) if path.is_file() else iter(())
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == test for node in found)


def test_every_control_that_is_asked_for_has_a_row() -> None:
    """None is missing, none is made up, and their order is that of the list."""
    assert list(ROWS) == ASKED


@pytest.mark.parametrize("control", ASKED)
def test_every_control_has_a_test_that_exists(control: str) -> None:
    """A row says what Flux does and names at least one test; all that it names are there."""
    _, mechanism, shown, left = ROWS[control]
    named = named_tests(shown)

    assert mechanism
    assert left
    assert named
    assert [f"{file}::{test}" for file, test in named if not exists(file, test)] == []


def test_a_test_that_does_not_exist_would_be_seen() -> None:
    """The check can fail: an invented function, an invented file."""
    assert not exists("tests/architecture/test_controls.py", "test_that_nobody_wrote")
    assert not exists("tests/architecture/test_nothing.py", "test_every_control_has_a_test_that_exists")
