"""Real sample archives: the files of the package `iscc-samples`, laid out as an agency's archive would be.

Theory. The package holds one picture, document, text, sound and film in each of some 60 formats, and nothing else.
They are copied, not linked, so that no test can change the installed package, and a folder exists only when it is
complete (rename). `LICENSE.txt` in it says whose they are and under which terms, from the package's own metadata.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from flux_devkit.errors import MissingTool
from flux_devkit.home import Home

KINDS = ("image", "text", "audio", "video")
DISTRIBUTION = "iscc-samples"


def sample_archive(home: Home, kinds: Sequence[str] = ("image", "text")) -> Path:
    """A folder with one sub-folder for each of the given kinds (of `image`, `text`, `audio`, `video`)."""
    archive = home.root / "samples" / f"iscc-{'-'.join(sorted(kinds))}"
    if not archive.exists():
        part = archive.with_name(f"{archive.name}.part-{os.getpid()}")
        for kind in kinds:
            shutil.copytree(packaged_files() / kind, part / kind)
        (part / "LICENSE.txt").write_text(licence_text())
        part.rename(archive)
    return archive


def sample_files(archive: Path) -> list[Path]:
    """The archive's files, without the licence, in order."""
    return sorted(path for path in archive.rglob("*") if path.is_file() and path.name != "LICENSE.txt")


def packaged_files() -> Path:
    """The files inside the installed package. Raises MissingTool if it is absent."""
    found = importlib.util.find_spec("iscc_samples")
    if found is None or found.origin is None:
        raise MissingTool(f"the sample archives are the package {DISTRIBUTION}, and it is absent; call: make setup")
    return Path(found.origin).parent / "files"


def licence_text() -> str:
    """Whose the files are and under which terms."""
    metadata = importlib.metadata.metadata(DISTRIBUTION)
    return (
        f"{metadata['Summary']}\n"
        f"From the package {metadata['Name']} {metadata['Version']} by {metadata['Author']}.\n"
        f"Licence: {metadata['License']} (https://creativecommons.org/licenses/by/4.0/). Files are unchanged.\n"
    )
