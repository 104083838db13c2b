"""Locks are taken in one order: lane, agencies, runs, checkpoints, tree heads; and several rows of one table sorted.

What can be read from the statements is checked here: who locks more than one row says in which order, and who writes many
keys that another transaction may write too sorts them. Two transactions that follow this never wait for each other in a ring.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from flux_common.postgres.queries import Queries

ROOT = Path(__file__).parents[2]
FILES = sorted(path for top in ("libs/flux_common", "services") for path in (ROOT / top).rglob("src/**/*.sql"))
ONE_ROW = re.compile(r"\b(shard|topic) = \$\d\b")  # a lease's row, a lane's row


def statements() -> dict[str, str]:
    """Return every named statement of what ships, as `file: name`, without its comments."""
    found: dict[str, str] = {}
    for path in FILES:
        if re.search(r"^-- name: ", text := path.read_text(), re.M):
            queries = Queries.parse(text)
            for name in re.findall(r"^-- name: (\w+)", text, re.M):
                found[f"{path.name}: {name}"] = re.sub(r"--.*", "", queries[name])
    return found


def locks_unsorted(statement: str) -> bool:
    """Tell whether a statement locks rows, perhaps several, and does not say in which order."""
    if not re.search(r"\bFOR (NO KEY )?UPDATE\b", statement):
        return False
    return "ORDER BY" not in statement and not ONE_ROW.search(statement)


def inserts_unsorted(statement: str) -> bool:
    """Tell whether a statement inserts many keys that others may insert at the same time, and does not sort them."""
    return bool(re.search(r"INSERT INTO.+unnest\(.+ON CONFLICT", statement, re.S)) and "ORDER BY" not in statement


@pytest.mark.parametrize("broken", [locks_unsorted, inserts_unsorted])
def test_no_statement_breaks_the_order(broken: Callable[[str], bool]) -> None:
    """Every statement that takes several locks takes them sorted: add ORDER BY the key."""
    assert [name for name, statement in statements().items() if broken(statement)] == []


def test_there_is_something_to_look_at() -> None:
    """The statements are found, those that lock among them."""
    locking = {name for name, statement in statements().items() if "FOR UPDATE" in statement}

    assert {"runs.sql: lock_runs", "runs.sql: lock_items"} <= locking


def test_a_seeded_fault_is_found() -> None:
    """The rules can fail."""
    assert locks_unsorted("SELECT * FROM flux.runs WHERE agency_id = ANY ($1) FOR UPDATE")
    assert inserts_unsorted("INSERT INTO agencies SELECT x FROM unnest($1::text[]) x ON CONFLICT DO NOTHING")
    assert not locks_unsorted("SELECT shard FROM relay_leases WHERE shard = $1 FOR UPDATE")
