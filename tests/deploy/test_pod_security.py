"""The checker of the restricted Pod Security level decides every public conformance fixture as the fixture says."""

from __future__ import annotations

import tarfile
from pathlib import Path

from flux_devkit.manifests.documents import Document, parse, pods
from flux_devkit.manifests.pod_security import findings


def _fixtures(corpora: Path) -> dict[str, Document]:
    """Return every fixture by its path in the archive."""
    with tarfile.open(corpora / "pod-security/v1.37.tar.gz") as archive:
        files = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        return {name: parse(file.read().decode())[0] for name, file in files.items() if file is not None}


def _refused(document: Document) -> bool:
    return any(list(findings(pod, document["metadata"].get("annotations"))) for pod in pods([document]))


def test_every_fixture_is_decided_as_it_says(corpora: Path) -> None:
    """Whatever fails restricted or baseline is refused, and whatever passes restricted is not."""
    found = {name: _refused(document) for name, document in _fixtures(corpora).items()}
    wrong_pass = [name for name, refused in found.items() if "/fail/" in name and not refused]
    wrong_fail = [
        name for name, refused in found.items() if name.startswith("restricted/") and "/pass/" in name and refused
    ]

    assert (wrong_pass, wrong_fail) == ([], [])
    assert sum("/fail/" in name for name in found) == 76 + 34
    assert sum(name.startswith("restricted/") and "/pass/" in name for name in found) == 23
