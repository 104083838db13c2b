"""Results have stable JSON, and tables that a pipe can read."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
import yaml

from flux_client.cli.options import Format
from flux_client.cli.output import show, show_line

ROWS = [
    {
        "run_id": UUID("6f9a3c52-9d0b-5c7e-8a41-d3f1c0de0002"),
        "at": datetime(2026, 3, 1, 13, 0, 0, 5000, tzinfo=timezone(timedelta(hours=1))),
        "digest": b"\x00\xff",
        "count": 3,
        "code": None,
    }
]
PLAIN = [
    {
        "run_id": "6f9a3c52-9d0b-5c7e-8a41-d3f1c0de0002",
        "at": "2026-03-01T12:00:00.005Z",
        "digest": "00ff",
        "count": 3,
        "code": None,
    }
]


def test_json_has_rfc3339_times_hexadecimal_digests_and_the_given_order(capsys: pytest.CaptureFixture[str]) -> None:
    """A program reads the same whatever the type in the database."""
    show(ROWS, Format.JSON)
    text = capsys.readouterr().out

    assert json.loads(text) == PLAIN
    assert list(json.loads(text)[0]) == list(ROWS[0])


def test_yaml_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """The two forms never differ."""
    show(ROWS, Format.YAML)

    assert yaml.safe_load(capsys.readouterr().out) == PLAIN


def test_a_piped_table_is_aligned_columns_of_what_was_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    """No colour, no frame, nothing cut off."""
    show(ROWS, Format.TABLE, ("count", "run_id", "code"))

    assert capsys.readouterr().out.splitlines() == [
        "COUNT  RUN_ID                                CODE",
        "3      6f9a3c52-9d0b-5c7e-8a41-d3f1c0de0002  -",
    ]


def test_an_empty_list_is_an_empty_array_and_a_bare_heading(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing found is no error."""
    show([], Format.JSON)
    show([], Format.TABLE, ("a", "b"))

    assert capsys.readouterr().out == "[]\nA  B\n"


def test_what_is_followed_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A line of JSON is whole in itself."""
    show_line(ROWS[0], Format.JSON)

    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == PLAIN


def test_times_are_utc() -> None:
    """The example's time is written in another zone than it is shown in."""
    at = ROWS[0]["at"]

    assert isinstance(at, datetime)
    assert at.astimezone(UTC).hour == 12
