"""Named queries: static text, one name each, found by name."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from flux_common.postgres.queries import Queries

TEXT = """-- What all of these are for.
-- name: first
-- Why.
SELECT 1

-- name: second_one
SELECT
  2  -- name: not_a_name, for it does not begin its line
"""


def test_a_text_is_split_at_its_names() -> None:
    """Each statement is the text below its name, comments included, without the blank lines around it."""
    queries = Queries.parse(TEXT)

    assert queries["first"] == "-- Why.\nSELECT 1"
    assert queries["second_one"].startswith("SELECT\n  2  -- name: not_a_name")


def test_two_statements_of_one_name_are_refused() -> None:
    """The later one would silently win."""
    with pytest.raises(ValueError, match="one name"):
        Queries.parse("-- name: a\nSELECT 1\n-- name: a\nSELECT 2\n")


def test_a_name_that_is_not_there_is_said() -> None:
    """A misspelt name fails where it is used."""
    with pytest.raises(KeyError, match="third"):
        Queries.parse(TEXT)["third"]


@pytest.mark.parametrize("line", ["-- name: Upper", "-- name:", "-- name: a b", "--name: a", "-- name: 1st"])
def test_a_line_that_nearly_names_a_statement_is_refused(line: str) -> None:
    """Else the statement would become the tail of the one before it."""
    with pytest.raises(ValueError, match="name"):
        Queries.parse(f"-- name: a\nSELECT 1\n{line}\nSELECT 2\n")


def test_a_statement_without_text_is_refused() -> None:
    """An empty statement runs and does nothing."""
    with pytest.raises(ValueError, match="empty"):
        Queries.parse("-- name: a\n-- Why.\n-- name: b\nSELECT 1\n")


def test_every_file_of_the_room_loads() -> None:
    """The room's own files are read as its modules read them, and every statement is found by its name."""
    folder = resources.files("flux_common.postgres")
    texts = {file.name: file.read_text() for file in folder.iterdir() if file.name.endswith(".sql")}
    found = {name: re.findall(r"^-- name: (\w+)$", text, re.M) for name, text in texts.items()}
    named = {name: Queries.load("flux_common.postgres", name) for name, names in found.items() if names}

    assert {"database.sql", "lanes.sql", "migrations.sql", "outbox.sql", "roles.sql"} <= set(named)
    assert all(queries[name] for file, queries in named.items() for name in found[file])
