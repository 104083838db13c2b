"""Describing a dataset for those who find it: RO-Crate 1.1 and Croissant 1.0, both JSON-LD, from the summary alone.

Nothing here asks for the time or the machine, so the same chains make the same files. That is why the crate has no
`datePublished` of Flux's making: it carries one only if the request's labels say it (`date-published`). Licence and
creator are carried through from the labels `license` and `creator`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from flux_transform.domain.finalize import Summary
from flux_transform.domain.records import FileEntry
from flux_transform.transforms.parquet import Table

PARQUET_TYPE: Final = "application/vnd.apache.parquet"
_CROISSANT_CONTEXT: Final[dict[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def describe(summary: Summary, tables: Sequence[Table]) -> dict[str, bytes]:
    """Return the metadata files by the names that their readers look for."""
    used = [table for table in tables if table.name in summary.tables]
    return {
        "croissant.json": _bytes(_croissant(summary, used)),
        "ro-crate-metadata.json": _bytes(_crate(summary, used)),
    }


def _bytes(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _about(summary: Summary) -> dict[str, Any]:
    """Return what both formats say of the dataset as a whole."""
    item, counts = summary.item, summary.counts
    labels = item.job.labels
    about = {
        "name": labels.get("title") or labels.get("collection") or item.request_id,
        "description": (
            f"{counts.written} of {counts.read} objects from {item.job.source_uri} ({item.job.content_type}), "
            f"transformed for {item.job.use_case} by {summary.transform}; {counts.rejected} were rejected and are listed."
        ),
        "identifier": item.run_id,
    }
    carried = (("license", "license"), ("creator", "creator"), ("date-published", "datePublished"))
    return about | {name: labels[label] for label, name in carried if label in labels}


def _crate(summary: Summary, tables: Sequence[Table]) -> dict[str, Any]:
    """Return the crate: the root, the folder of each table, and each file with its checksum (RO-Crate 1.1)."""
    files = [entry for table in tables for entry in summary.tables[table.name]]
    parts = [*(f"data/{table.name}/" for table in tables), *(entry.name for entry in summary.reject_files)]
    root = {"@id": "./", "@type": "Dataset", **_about(summary), "hasPart": [{"@id": part} for part in parts]}
    folders = [_folder(table, summary.tables[table.name]) for table in tables]
    entities = [_file(entry, PARQUET_TYPE) for entry in files]
    entities += [_file(entry, "application/x-ndjson") for entry in summary.reject_files]
    return {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": [_DESCRIPTOR, root, *folders, *entities]}


_DESCRIPTOR: Final[dict[str, Any]] = {
    "@id": "ro-crate-metadata.json",
    "@type": "CreativeWork",
    "about": {"@id": "./"},
    "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
}


def _folder(table: Table, entries: Sequence[FileEntry]) -> dict[str, Any]:
    return {
        "@id": f"data/{table.name}/",
        "@type": "Dataset",
        "name": table.name,
        "description": table.description,
        "hasPart": [{"@id": entry.name} for entry in entries],
    }


def _file(entry: FileEntry, media_type: str) -> dict[str, Any]:
    return {
        "@id": entry.name,
        "@type": "File",
        "name": entry.name.rsplit("/", 1)[-1],
        "encodingFormat": media_type,
        "contentSize": str(entry.bytes),
        "sha256": entry.sha256,
    }


def _croissant(summary: Summary, tables: Sequence[Table]) -> dict[str, Any]:
    """Return the Croissant description: files with checksums, a file set and a record set per table (Croissant 1.0)."""
    objects = [
        {
            "@type": "cr:FileObject",
            "@id": entry.name,
            "name": entry.name.rsplit("/", 1)[-1],
            "contentUrl": entry.name,
            "encodingFormat": PARQUET_TYPE,
            "contentSize": f"{entry.bytes} B",
            "sha256": entry.sha256,
        }
        for table in tables
        for entry in summary.tables[table.name]
    ]
    return {
        "@context": _CROISSANT_CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        **_about(summary),
        "url": summary.item.job.source_uri,
        "distribution": [*objects, *(_file_set(table) for table in tables)],
        "recordSet": [_record_set(table) for table in tables],
    }


def _file_set(table: Table) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{table.name}-files",
        "name": f"{table.name}-files",
        "encodingFormat": PARQUET_TYPE,
        "includes": f"data/{table.name}/*.parquet",
    }


def _record_set(table: Table) -> dict[str, Any]:
    fields = [_field(table, column) for column in table.schema]
    return {
        "@type": "cr:RecordSet",
        "@id": table.name,
        "name": table.name,
        "description": table.description,
        "field": [field for field in fields if field is not None],
    }


def _field(table: Table, column: pa.Field) -> dict[str, Any] | None:
    """Return a column's description; Croissant has no type for a list of structs, so such a column is left out."""
    repeated = pa.types.is_list(column.type)
    kind = _data_type(column.type.value_type if repeated else column.type)
    if kind is None:
        return None
    field = {
        "@type": "cr:Field",
        "@id": f"{table.name}/{column.name}",
        "name": column.name,
        "dataType": kind,
        "source": {"fileSet": {"@id": f"{table.name}-files"}, "extract": {"column": column.name}},
    }
    return field | {"repeated": True} if repeated else field


def _data_type(kind: pa.DataType) -> str | None:
    """Return the Croissant type of a column; a struct that holds bytes is an image (Croissant 1.0, ImageObject)."""
    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_struct(kind):
        return "sc:ImageObject" if "bytes" in {field.name for field in kind} else None
    return "sc:Text"
