"""The glossary is in order, says each word once, and has every word that the code makes a name of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from flux_checkpoint.domain.states import ItemState, RunState
from flux_common.auth.identity import Binding, Role
from flux_common.contracts.types import Cause, CommandName
from flux_common.kernel.ids import ItemKind
from flux_common.postgres.lanes import ExceptionClass

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/glossary.md").read_text()
ENTRIES: dict[str, str] = dict(re.findall(r"^\*\*(.+?)\*\* — (.+(?:\n.+)*)", TEXT, re.M))

TERMS = {
    "run states": [state.value for state in RunState],
    "item states": [state.value for state in ItemState],
    "ledger classes": ["effect", *(name.replace("_", " ") for name in get_args(ExceptionClass))],
    "item kinds": list(get_args(ItemKind)),
    "roles": [role.value for role in Role],
    "bindings": [binding.value for binding in Binding],
    "services": sorted(path.parent.name for path in ROOT.glob("services/*/pyproject.toml")),
}


@pytest.mark.parametrize("kind", TERMS)
def test_every_name_of_the_code_has_an_entry(kind: str) -> None:
    """Whoever meets a state, a class, a kind or a role can look it up."""
    assert [term for term in TERMS[kind] if term not in ENTRIES] == []


def test_a_state_says_whose_it_is() -> None:
    """The entry of a state says whether it is a run's, an item's, or both."""
    runs, items = set(TERMS["run states"]), set(TERMS["item states"])
    wrong = [
        name
        for name in runs | items
        if (name in runs) != bool(re.search(r"Run state|Of a run", ENTRIES[name]))
        or (name in items) != bool(re.search(r"Item state|Of an item", ENTRIES[name]))
    ]

    assert wrong == []


def test_commands_and_causes_are_named() -> None:
    """Commands stand in the entry *command*, causes in the entry *FAILED*."""
    assert set(re.findall(r"\*([a-z]+)\*", ENTRIES["command"])) == set(get_args(CommandName))
    assert set(get_args(Cause)) <= set(re.findall(r"\*([a-z]+)\*", ENTRIES["FAILED"]))


def test_entries_are_sorted_and_single() -> None:
    """Entries stand in alphabetical order, each word once."""
    words = re.findall(r"^\*\*(.+?)\*\* — ", TEXT, re.M)

    assert words == sorted(set(words), key=lambda word: re.sub(r"[^a-z ]", " ", word.lower()))
    assert len(words) == len(re.findall(r"^\*\*", TEXT, re.M))


def test_what_an_entry_points_to_is_there() -> None:
    """Links lead to files beside the glossary, and a word that an entry says to compare has an entry."""
    assert [link for link in re.findall(r"\]\((.+?)\)", TEXT) if not (ROOT / "docs" / link).exists()] == []
    assert [word for word in re.findall(r"Compare \*(.+?)\*", TEXT) if word not in ENTRIES] == []
