"""The Dockerfile and compose.yaml by the judges of their kind: hadolint, and the schema of the compose specification.

Both tools come from `requirements/linters.lock`, into an environment of their own. Each is shown to see a planted mistake.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flux_devkit.manifests.tools import Verdict, compose, compose_schema, dockerfile, hadolint

Judge = Callable[[Path, Path], Verdict]


def test_the_dockerfile_is_without_complaint(repository: Path) -> None:
    """What hadolint may ignore is said in the file itself, with the reason."""
    assert dockerfile(repository) == Verdict(True, "exit 0, 0 complaints")


def test_the_compose_file_keeps_the_schema(repository: Path) -> None:
    """Every key is one that the specification knows, and every value is of its type."""
    assert compose(repository) == Verdict(True, "exit 0")


@pytest.mark.parametrize(
    ("judge", "file", "good", "bad"),
    [
        (compose_schema, "compose.yaml", "    restart: unless-stopped", "    restarts: unless-stopped"),
        (hadolint, "Dockerfile", "USER 10001:10001", "USER root"),
        (hadolint, "Dockerfile", "WORKDIR /app", "WORKDIR app"),
    ],
    ids=["unknown key", "root", "relative folder"],
)
def test_a_planted_mistake_is_seen(
    repository: Path, tmp_path: Path, judge: Judge, file: str, good: str, bad: str
) -> None:
    """The same file with one mistake is refused."""
    text = (repository / file).read_text()
    assert good in text
    planted = tmp_path / file
    planted.write_text(text.replace(good, bad))

    assert not judge(repository, planted).holds
