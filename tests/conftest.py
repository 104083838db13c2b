"""What suites share: where the repository is, and where the public corpora are, if they are."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from flux_devkit import home

REPOSITORY = Path(__file__).resolve().parents[1]

# A shell's background job ignores Ctrl-C, and so would the programs that tests press it on.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the repository's root."""
    return REPOSITORY


@pytest.fixture(scope="session")
def corpora() -> Path:
    """Return the folder of public test data; without it the test is skipped."""
    folder = home.corpora()
    if not folder.is_dir():
        pytest.skip(f"no corpora at {folder}: set FLUX_CORPORA to their folder")
    return folder
