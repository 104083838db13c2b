"""What the tests of the manifests share: the rendered documents, once a session."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from flux_devkit.manifests import rendering
from flux_devkit.manifests.documents import Document

REPOSITORY = Path(__file__).resolve().parents[2]
K8S = REPOSITORY / "deploy/k8s"


@cache
def _rendered(target: str) -> list[Document]:
    return rendering.documents(K8S, target)


@pytest.fixture(scope="session")
def rendered() -> Callable[[str], list[Document]]:
    """Return a function that gives a copy of the documents of `base` or an overlay, to read or to break."""
    return lambda target: copy.deepcopy(_rendered(target))
