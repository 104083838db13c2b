"""Where the contract lies, and where the public corpora are, if they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


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
