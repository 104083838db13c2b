"""The documents lead somewhere: every link and every file that they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PACKAGES = [path for top in ("libs", "services") for path in ROOT.glob(f"{top}/*/src/*") if path.is_dir()]


def _prose(text: str) -> str:
    """Return a document without its code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files(document: Path) -> None:
    """A relative link leads to a file or folder of this repository."""
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", _prose(document.read_text()))
    dead = [link for link in links if "://" not in link and not (document.parent / link).exists()]

    assert dead == []


def test_the_architecture_names_files_that_are_there() -> None:
    """A path in ARCHITECTURE.md is one of the repository, or of a package in it."""
    text = _prose((ROOT / "ARCHITECTURE.md").read_text())
    named = {name.split("::")[0] for name in re.findall(r"`([\w./-]+\.(?:py|md|sql|yaml|json))`", text)}
    roots = [ROOT, *(ROOT.glob("services/*/src/*")), *PACKAGES, *(package.parent for package in PACKAGES)]

    assert len(named) > 10
    assert [name for name in sorted(named) if not any((root / name).exists() for root in roots)] == []


def test_the_architecture_maps_every_folder() -> None:
    """Each folder at the top that holds code or documents is in the map, and each room of flux_common too."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))}
    rooms = {path.parent.name for path in (ROOT / "libs/flux_common/src/flux_common").glob("*/*.py")}

    assert [name for name in sorted(folders) if not re.search(rf"^{name}/", text, re.M)] == []
    assert [name for name in sorted(rooms) if not re.search(rf"^  {name} ", text, re.M)] == []
