"""The same rows make the same bytes."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flux_transform.transforms.images import IMAGES
from flux_transform.transforms.parquet import Table, encode, leaf_paths
from flux_transform.transforms.text import TEXTS

TABLE = Table(
    "t",
    "a table",
    pa.schema([("key", pa.string()), ("tags", pa.list_(pa.string())), ("image", pa.struct([("bytes", pa.binary())]))]),
    row_group_rows=2,
    dictionary=("key",),
    blobs=("image.bytes",),
)
ROWS = [{"key": f"k{n % 2}", "tags": ["a", "b"], "image": {"bytes": b"x" * 100}} for n in range(5)]


def test_settings_are_those_of_the_design() -> None:
    """zstd but for blobs, dictionary on keys alone, bounded row groups, rows unchanged."""
    file = pq.ParquetFile(io.BytesIO(encode(TABLE, ROWS)))
    group = file.metadata.row_group(0)
    columns = {group.column(n).path_in_schema: group.column(n) for n in range(group.num_columns)}

    assert file.metadata.num_row_groups == 3
    assert {path: column.compression for path, column in columns.items()} == {
        "key": "ZSTD",
        "tags.list.element": "ZSTD",
        "image.bytes": "UNCOMPRESSED",
    }
    assert {path: column.has_dictionary_page for path, column in columns.items()} == {
        "key": True,
        "tags.list.element": False,
        "image.bytes": False,
    }
    assert file.read().to_pylist() == ROWS


def test_bytes_depend_on_the_rows_alone() -> None:
    """Encoding twice gives equal bytes; another row gives others."""
    assert encode(TABLE, ROWS) == encode(TABLE, list(ROWS))
    assert encode(TABLE, ROWS) != encode(TABLE, ROWS[:-1])


def test_pages_carry_checksums() -> None:
    """A reader that asks for verification finds a flipped byte."""
    data = bytearray(encode(TABLE, ROWS))
    data[data.index(b"x" * 100 + b"d\x00\x00\x00") + 50] ^= 1  # two values of a page, with the length between them

    with pytest.raises(OSError, match="CRC"):
        pq.ParquetFile(io.BytesIO(bytes(data)), page_checksum_verification=True).read()


def test_paths_are_those_that_parquet_uses() -> None:
    """The codec of each column is set by these names, so they must be the file's own."""
    for table in (IMAGES, TEXTS):
        schema = pq.ParquetFile(io.BytesIO(encode(table, []))).schema

        assert leaf_paths(table.schema) == [schema.column(n).path for n in range(len(schema))]
