"""Every decision record has the same form, and ends with tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECORDS = sorted((ROOT / "docs/decisions").glob("*.md"))
SECTIONS = ["Context", "Decision", "Consequences", "Enforced by"]
LINES_MAX = 60


def test_records_are_numbered_without_gaps() -> None:
    """NNNN-title.md, from 0001 on, and the heading has the same number."""
    names = [path.name for path in RECORDS]

    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    assert [name for name in names if not re.fullmatch(r"\d{4}-[a-z0-9]+(-[a-z0-9]+)*\.md", name)] == []
    assert [p.name for p in RECORDS if not p.read_text().startswith(f"# {int(p.name[:4])}. ")] == []


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.stem)
def test_a_record_has_its_sections_and_fits_a_page(record: Path) -> None:
    """Context, decision, consequences, and last the tests; one page."""
    text = record.read_text()

    assert re.findall(r"^## (.+)$", text, re.M) == SECTIONS
    assert re.search(r"^Status: (proposed|accepted|superseded by \d{4})$", text, re.M)
    assert len(text.splitlines()) <= LINES_MAX


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.stem)
def test_what_enforces_a_record_is_there(record: Path) -> None:
    """The last section lists at least one test, and each exists under that name."""
    named = re.findall(r"^- `(\S+)::(\S+)`$", record.read_text().split("## Enforced by")[1], re.M)
    missing = [f"{file}::{test}" for file, test in named if test not in _tests(ROOT / file)]

    assert named
    assert missing == []


def _tests(path: Path) -> set[str]:
    """Return the test functions of a file; none if there is no such file."""
    if not path.is_file():
        return set()
    nodes = ast.walk(ast.parse(path.read_text()))
    return {
        n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.name.startswith("test_")
    }
