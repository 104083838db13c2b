"""What Flux depends on is written down, and what is locked is what is asked for.

Whether a lock is the newest possible cannot be known offline. What can be: that it holds everything asked for, in a version
that is allowed, that the locks agree with one another, and that nothing in them is unpinned.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECTS = sorted([*ROOT.glob("libs/*/pyproject.toml"), *ROOT.glob("services/*/pyproject.toml")])
SERVICES = sorted(path.parent.name for path in ROOT.glob("services/*/pyproject.toml"))
LOCKS = sorted(path.stem for path in ROOT.glob("requirements/*.lock"))


def _requirements(path: Path) -> list[Requirement]:
    """Return what a pyproject asks for of others, and not of Flux itself."""
    document = tomllib.loads(path.read_text())
    asked = [
        *document["project"]["dependencies"],
        *(a for g in document.get("dependency-groups", {}).values() for a in g),
    ]
    return [r for r in map(Requirement, asked) if not r.name.startswith("flux-")]


def _asked_for() -> Iterator[tuple[str, str]]:
    """Yield (package, who asks), where who is the name in the table: a library or service without `flux-`, or dev."""
    for path in PROJECTS:
        who = path.parent.name.removeprefix("flux_")
        yield from ((canonicalize_name(r.name), who) for r in _requirements(path))
        build = tomllib.loads(path.read_text())["build-system"]["requires"]
        yield from ((canonicalize_name(Requirement(text).name), "build") for text in build)
    yield from ((canonicalize_name(r.name), "dev") for r in _requirements(ROOT / "pyproject.toml"))
    bootstrap = (ROOT / "requirements/bootstrap.in").read_text().split()
    yield from ((canonicalize_name(Requirement(text).name), "bootstrap") for text in bootstrap)


def _table() -> dict[str, list[str]]:
    """Return the cells of each row of docs/dependencies.md behind the first, by package."""
    rows = [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in (ROOT / "docs/dependencies.md").read_text().splitlines()
        if line.startswith("| ") and not line.startswith("| package")
    ]
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0]: row[1:] for row in rows}


def _lock(name: str) -> dict[str, set[str]]:
    """Return what a lock pins: by package, `version` or `version ; marker`, several only where each has a marker."""
    text = (ROOT / f"requirements/{name}.lock").read_text()
    pins: dict[str, set[str]] = {}
    for package, pin in re.findall(r"^([A-Za-z0-9._-]+)(?:\[.+?\])?==(\S+(?: ; [^\\\n]+)?)", text, re.M):
        pins.setdefault(canonicalize_name(package), set()).add(pin.strip())
    assert [p for p, versions in pins.items() if len(versions) > 1 and not all(" ; " in v for v in versions)] == []
    return pins


def test_every_dependency_is_explained_and_every_explanation_is_of_one() -> None:
    """The table names exactly the packages that the projects ask for, and who asks."""
    asked: dict[str, set[str]] = {}
    for package, who in _asked_for():
        asked.setdefault(package, set()).add(who)
    told = {package: set(cells[0].split(", ")) for package, cells in _table().items()}
    # A library that ships with the others need not be asked for again by who imports it through them.
    missing = {
        package: who - told.get(package, set()) for package, who in asked.items() if who - told.get(package, set())
    }

    assert told.keys() == asked.keys()
    assert missing in ({}, {"hatchling": set()})


def test_every_row_has_a_reason_a_licence_and_an_alternative() -> None:
    """No cell is left empty."""
    assert [package for package, cells in _table().items() if len(cells) != 4 or not all(cells)] == []


def test_no_licence_binds_what_is_built_on_it() -> None:
    """Nothing is under GPL or AGPL; LGPL is pebble's alone."""
    licences = {package: cells[2] for package, cells in _table().items()}

    assert [package for package, licence in licences.items() if re.search(r"\bA?GPL", licence)] == []
    assert [package for package, licence in licences.items() if "LGPL" in licence] == ["pebble"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_services_lock_holds_what_it_asks_for(service: str) -> None:
    """Everything that the service and flux_common ask for is locked, in a version that they allow."""
    _assert_locked(service, [ROOT / "libs/flux_common/pyproject.toml", ROOT / f"services/{service}/pyproject.toml"])


def test_the_development_lock_holds_what_all_ask_for() -> None:
    """Everything that any project and the development group ask for is in dev.lock."""
    _assert_locked("dev", [ROOT / "pyproject.toml", *PROJECTS])


def test_the_bootstrap_lock_holds_the_same_uv() -> None:
    """The uv that installs is the uv that the development environment has."""
    assert _lock("bootstrap") == {"uv": _lock("dev")["uv"]}


def _assert_locked(lock: str, projects: list[Path]) -> None:
    pins = _lock(lock)
    wrong = [
        f"{requirement} is asked for, {pin} is locked"
        for project in projects
        for requirement in _requirements(project)
        for pin in pins.get(canonicalize_name(requirement.name), {"nothing"})
        if pin == "nothing" or not requirement.specifier.contains(pin.partition(" ")[0], prereleases=True)
    ]

    assert wrong == [], "call: make lock"


@pytest.mark.parametrize("service", SERVICES)
def test_what_runs_is_what_was_tested(service: str) -> None:
    """A service's lock has no version that differs from the development lock's, and no package that is not there."""
    tested = _lock("dev")

    assert {package: pins for package, pins in _lock(service).items() if tested.get(package) != pins} == {}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_by_hash_and_names_no_index(name: str) -> None:
    """Every requirement is one exact version with hashes; any mirror can serve it."""
    text = (ROOT / f"requirements/{name}.lock").read_text()
    entries = re.split(r"\n(?=\S)", re.sub(r"^\s*#.*\n?", "", text, flags=re.M).replace("\\\n", " ").strip())

    assert len(entries) == sum(map(len, _lock(name).values()))
    assert [entry[:60] for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)] == []
    assert re.findall(r"(?m)^.*(?:://|--index|--find-links|--trusted-host).*$", text) == []


def test_every_lock_belongs_to_something() -> None:
    """One for each service, one for development, one for the bootstrap, two for tools with environments of their own."""
    assert sorted([*SERVICES, "dev", "bootstrap", "linters", "tools"]) == LOCKS
