"""Migration files: numbered without gaps, named by their form, and each one transaction with a lock time-out first."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flux_common.kernel.errors import InvariantBroken
from flux_common.postgres.migrations import Migration, migrations

NEXT_RELEASE = Path(__file__).parents[3] / "e2e/next_release.sql"


def folder(tmp_path: Path, *names: str) -> Path:
    """Return a folder with files of these names."""
    for name in names:
        (tmp_path / name).write_text(f"-- {name}\n")
    return tmp_path


def test_files_are_read_in_order(tmp_path: Path) -> None:
    """By number, whatever the folder's order; the digest is that of the text."""
    found = migrations(folder(tmp_path, "0002_post_b.sql", "0001_pre_a.sql", "__init__.py", "README.md"))

    assert [(m.version, m.name) for m in found] == [(1, "0001_pre_a.sql"), (2, "0002_post_b.sql")]
    assert found[0].sha256 == Migration(1, "x", "-- 0001_pre_a.sql\n").sha256 != found[1].sha256


@pytest.mark.parametrize(
    "names",
    [
        ("0001_pre_a.sql", "0003_pre_b.sql"),
        ("0002_pre_a.sql",),
        ("0001_pre_a.sql", "0001_pre_b.sql"),
        ("0001_pre_a.sql", "0002-pre_b.sql"),
        ("0001_pre_a.sql", "2_pre_b.sql"),
        ("0001_pre_a.sql", "0002_during_b.sql"),
        ("0001_pre_a.sql", "0002_pre_B.sql"),
    ],
    ids=["gap", "begins at 2", "twice", "dash", "short", "phase", "capital"],
)
def test_files_that_do_not_follow_each_other_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    """A gap, a number twice; a name that nearly fits would otherwise be left out without a word."""
    with pytest.raises(InvariantBroken):
        migrations(folder(tmp_path, *names))


@pytest.mark.parametrize("migration", migrations(), ids=lambda migration: migration.name)
def test_a_migration_waits_for_no_lock_for_long_and_is_one_transaction(migration: Migration) -> None:
    """Its first statement is the lock time-out, and nothing in it ends the transaction that it runs in."""
    statements = re.sub(r"--.*", "", migration.text).strip()

    assert statements.startswith("SET LOCAL lock_timeout = "), "begin with SET LOCAL lock_timeout = '5s';"
    assert not re.search(r"(?im)^\s*(COMMIT|ROLLBACK|START TRANSACTION|BEGIN\s*;|END\s*;)", _without_bodies(statements))
    assert "CONCURRENTLY" not in statements, "an index is built in its transaction; concurrently needs a job of its own"


@pytest.mark.parametrize(
    "text",
    [*(m.text for m in migrations() if "_pre_" in m.name), NEXT_RELEASE.read_text()],
    ids=[*(m.name for m in migrations() if "_pre_" in m.name), NEXT_RELEASE.name],
)
def test_a_pre_file_takes_nothing_away(text: str) -> None:
    """It only adds, for the code of the release before it runs on it; what takes away is named post."""
    assert _taken_away(text) == []


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE flux.runs",
        "ALTER TABLE flux.runs DROP COLUMN cause",
        "ALTER TABLE flux.runs RENAME COLUMN cause TO reason",
        "ALTER TABLE flux.runs ALTER COLUMN cause SET NOT NULL",
        "ALTER TABLE flux.runs ALTER cause TYPE integer",
        "ALTER TABLE flux.runs ADD COLUMN cause text NOT NULL",
        "drop function flux.expire_runs",
        "REVOKE SELECT ON flux.runs FROM flux_reader",
    ],
)
def test_what_takes_away_is_seen(statement: str) -> None:
    """What old code reads or leaves out must not go, be called otherwise or be asked for."""
    assert len(_taken_away(f"SET LOCAL lock_timeout = '5s';\nCREATE TABLE flux.new (n int);\n{statement};")) == 1


def _taken_away(text: str) -> list[str]:
    """Return the clauses of a migration that old code cannot live with, as far as their words tell."""
    clauses = re.split(r"[;,]\s", re.sub(r"--.*", "", text))
    gone = re.compile(
        r"\bDROP (TABLE|COLUMN|FUNCTION|SCHEMA|VIEW|TYPE)\b|\bRENAME\b|\bSET NOT NULL\b"
        r"|\bALTER (COLUMN )?\w+ (SET DATA )?TYPE\b|^\s*REVOKE .* FROM (?!PUBLIC)|\bADD COLUMN (?!.*\bDEFAULT\b).*\bNOT NULL\b",
        re.I | re.S,
    )
    return [clause.strip() for clause in clauses if gone.search(clause)]


def _without_bodies(text: str) -> str:
    """Return the text without the bodies of functions and blocks, where BEGIN and END mean something else."""
    return re.sub(r"(\$\w*\$).*?\1|BEGIN ATOMIC.*?\nEND;", "", text, flags=re.S)
