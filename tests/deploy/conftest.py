"""What the tests of the manifests share: the rendered documents, once a session, and the corpora where they are."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from flux_devkit.manifests import rendering
from flux_devkit.manifests.documents import Document

REPOSITORY = Path(__file__).resolve().parents[2]
K8S = REPOSITORY / "deploy/k8s"


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the repository's root."""
    return REPOSITORY


@pytest.fixture(scope="session")
def corpora() -> Path:
    """Return the folder of public test data; without it the test is skipped."""
    folder = Path(os.environ.get("FLUX_CORPORA", REPOSITORY / "../shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no corpora at {folder}: set FLUX_CORPORA to their folder")
    return folder


@cache
def _rendered(target: str) -> list[Document]:
    return rendering.documents(K8S, target)


@pytest.fixture(scope="session")
def rendered() -> Callable[[str], list[Document]]:
    """Return a function that gives a copy of the documents of `base` or an overlay, to read or to break."""
    return lambda target: copy.deepcopy(_rendered(target))
