"""Which places an agency may use."""

from __future__ import annotations

import pytest

from flux_common.auth.registry import within

PREFIXES = ("s3://nara/", "file:///data/nara/", "https://files.example/nara/", "memory:///")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://nara/",
        "s3://nara",
        "s3://nara/box-17/",
        "s3://nara/box 17/a%20b.tif",
        "s3://nara/b\u00fccher/..hidden/a..b",
        "file:///data/nara",
        "file:///data/nara/x/y",
        "https://files.example/nara/list.json",
        "memory:///x",
    ],
)
def test_a_place_under_a_prefix_is_within(uri: str) -> None:
    """The prefix itself, with or without its slash, and everything below it."""
    assert within(uri, PREFIXES)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "s3://",
        "s3://nara-evil/x",
        "s3://nar",
        "S3://nara/x",
        "gs://nara/x",
        "s3://nara/../loc/x",
        "s3://nara/./x",
        "s3://nara/x/..",
        "s3://nara/%2e%2e/loc/",
        "s3://nara/%2E./loc/",
        "s3://nara/x%2f..%2f..%2floc/",
        "s3://nara/%252e%252e/loc/",
        "s3://nara/..\\loc/",
        "s3://nara/%5c..%5cloc",
        "s3://nara/x?y=1",
        "s3://nara/x#y",
        "s3://nara/x%00y",
        "s3://nara/x\ny",
        "s3://nara/x%0ay",
        "s3://user@nara/x",
        "s3://nara@evil/x",
        "s3://evil/nara/x",
        "file:///data/nara-2/x",
        "file://host/data/nara/x",
        "file:///data/nara/../loc/x",
        "file:///DATA/nara/x",
        "https://files.example:444/nara/x",
        "https://files.example.evil/nara/x",
        "http://files.example/nara/x",
        " s3://nara/x",
    ],
)
def test_a_place_that_can_be_read_otherwise_is_not_within(uri: str) -> None:
    """Neighbours, dot segments in any encoding, other hosts and schemes, query and fragment are outside."""
    assert not within(uri, PREFIXES)


def test_nothing_is_within_no_prefix() -> None:
    """Default deny."""
    assert not within("s3://nara/x", ())
