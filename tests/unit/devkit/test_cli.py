"""What the command shows, and what it does not."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from flux_devkit.cli import app, hide_password


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("postgresql://postgres:secret@127.0.0.1:5432/postgres", "postgresql://postgres:***@127.0.0.1:5432/postgres"),
        ("postgresql://postgres@127.0.0.1/postgres", "postgresql://postgres@127.0.0.1/postgres"),
        ("127.0.0.1:9092", "127.0.0.1:9092"),
        ("/some/folder", "/some/folder"),
    ],
)
def test_a_password_is_never_shown(value: str, shown: str) -> None:
    """A DSN keeps its login and its place; anything else stays."""
    assert hide_password(value) == shown


def test_help_names_every_command() -> None:
    """The first thing a newcomer calls."""
    text = CliRunner().invoke(app, ["--help"]).output

    assert all(f" {command} " in text for command in ("up", "down", "status", "logs"))
