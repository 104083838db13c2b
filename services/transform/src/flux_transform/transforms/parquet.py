"""Writing rows to Parquet so that the same rows always make the same bytes.

A file's bytes depend on the rows, on how they are chunked and on pyarrow's version, on nothing else that was tried. So a
shard is one table, its chunks combined, written at once, by the pyarrow that the transform version names. Pages carry
checksums, but readers open a bit-flipped file all the same: to verify is to hash the file against the manifest.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

ZSTD_LEVEL: Final = 3
TEXT_ROW_GROUP_ROWS: Final = 10_000
IMAGE_ROW_GROUP_ROWS: Final = 100


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a dataset. `dictionary` names key-like columns; `blobs` columns that are compressed already."""

    name: str
    description: str
    schema: pa.Schema
    row_group_rows: int = TEXT_ROW_GROUP_ROWS
    dictionary: tuple[str, ...] = ()
    blobs: tuple[str, ...] = ()


def encode(table: Table, rows: list[dict[str, Any]]) -> bytes:
    """Return the Parquet file of some rows of a table."""
    data = pa.Table.from_pylist(rows, schema=table.schema).combine_chunks()
    sink = io.BytesIO()
    pq.write_table(
        data,
        sink,
        row_group_size=table.row_group_rows,
        version="2.6",
        data_page_version="1.0",
        compression=_compression(table),
        compression_level={column: ZSTD_LEVEL for column, codec in _compression(table).items() if codec == "ZSTD"},
        use_dictionary=list(table.dictionary),
        write_statistics=True,
        write_page_checksum=True,
    )
    return sink.getvalue()


def _compression(table: Table) -> dict[str, str]:
    """Return the codec of each leaf column, by its dotted path."""
    return {path: "NONE" if path in table.blobs else "ZSTD" for path in leaf_paths(table.schema)}


def leaf_paths(schema: pa.Schema) -> list[str]:
    """Return the dotted paths of a schema's leaf columns, as Parquet names them."""
    return [path for field in schema for path in _leaves(field.name, field.type)]


def _leaves(path: str, kind: pa.DataType) -> list[str]:
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return _leaves(f"{path}.list.element", kind.value_type)
    if pa.types.is_struct(kind):
        return [leaf for field in kind for leaf in _leaves(f"{path}.{field.name}", field.type)]
    return [path]
