"""Field types take exactly their grammar; a value means the same however JSON writes it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from flux_common.contracts.types import AgencyId, Count, FileName, One, Ratio, RequestId, SafeInteger, Timestamp, Uri

TAKEN: list[tuple[Any, str, Any]] = [
    (AgencyId, '"national-archives"', "national-archives"),
    (RequestId, '"a.B:c_-9"', "a.B:c_-9"),
    (Count, "0", 0),
    (Count, "1e3", 1000),
    (Count, "9007199254740991", 2**53 - 1),
    (SafeInteger, "-2.0", -2),
    (One, "1.0", 1),
    (Ratio, "1", 1.0),
    (Ratio, "0.05", 0.05),
    (FileName, '"data/part-0-1-ab.parquet"', "data/part-0-1-ab.parquet"),
    (FileName, '"a/.hidden/...x/é b"', "a/.hidden/...x/é b"),
    (Uri, '"s3://bucket/a%20b/c?x=1/2"', "s3://bucket/a%20b/c?x=1/2"),
    (Uri, '"file:///srv/data"', "file:///srv/data"),
    (Uri, '"abfss://container@account.dfs.example/path"', "abfss://container@account.dfs.example/path"),
    (Timestamp, '"2024-02-29T23:59:59.999Z"', "2024-02-29T23:59:59.999Z"),
]
REFUSED: list[tuple[Any, str]] = [
    (AgencyId, '"a"'),
    (AgencyId, '"nasa\\n"'),
    (AgencyId, '"NASA"'),
    (AgencyId, '"library.of.congress"'),
    (RequestId, '""'),
    (RequestId, '"a\\n"'),
    (RequestId, '"а"'),
    (Count, "-1"),
    (Count, "0.5"),
    (Count, "true"),
    (Count, '"1"'),
    (Count, "null"),
    (Count, "9007199254740992"),
    (Count, "9007199254740992.0"),
    (Count, "1e300"),
    (One, "true"),
    (One, "2"),
    (One, '"1"'),
    (Ratio, '"0.5"'),
    (Ratio, "true"),
    (Ratio, "NaN"),
    (Ratio, "1.0000001"),
    (FileName, '"../x"'),
    (FileName, '"a/./b"'),
    (FileName, '"/a"'),
    (FileName, '"a//b"'),
    (FileName, '"a/"'),
    (FileName, '"a\\u0000b"'),
    (FileName, '"a\\n"'),
    (Uri, '"s3://b/a b"'),
    (Uri, '"s3://b/é"'),
    (Uri, '"s3://b/%zz"'),
    (Uri, '"https://u:p@h/"'),
    (Uri, '"/srv/data"'),
    (Uri, '"s3://b/#f"'),
    (Timestamp, '"2026-02-29T00:00:00.000Z"'),
    (Timestamp, '"2026-02-28T00:00:00Z"'),
    (Timestamp, '"2026-02-28T24:00:00.000Z"'),
    (Timestamp, '"2026-12-31T23:59:60.000Z"'),
    (Timestamp, '"0000-01-01T00:00:00.000Z"'),
]


@pytest.mark.parametrize(("kind", "text", "expected"), TAKEN)
def test_what_is_taken(kind: Any, text: str, expected: Any) -> None:
    """A value of the grammar is read as itself."""
    read = TypeAdapter(kind).validate_json(text, strict=True)

    assert (read, type(read)) == (expected, type(expected))


@pytest.mark.parametrize(("kind", "text"), REFUSED)
def test_what_is_refused(kind: Any, text: str) -> None:
    """Everything beside the grammar is refused, nothing is coerced."""
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_json(text, strict=True)
