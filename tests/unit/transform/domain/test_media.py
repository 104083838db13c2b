"""Media types by name."""

from __future__ import annotations

import pytest

from flux_transform.domain.media import DOCX, PDF, UNKNOWN, guess


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("a/b.PDF", PDF),
        ("b.docx", DOCX),
        ("x.tar.gz", "application/gzip"),
        ("jpg", UNKNOWN),
        ("a.b/c", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_only_the_extension_of_the_last_part_counts(key: str, expected: str) -> None:
    """A guess never depends on folders, case or the machine."""
    assert guess(key) == expected
