"""What the dataset says of itself."""

from __future__ import annotations

import json

from flux_transform.domain.finalize import Counts, Summary
from flux_transform.domain.items import Item, Job
from flux_transform.domain.records import FileEntry
from flux_transform.transforms import metadata, mixed

RUN = "11111111-1111-5111-8111-111111111111"
LABELS = {"license": "https://creativecommons.org/publicdomain/zero/1.0/", "title": "Box 17"}
JOB = Job("s3://scans/box-17/", "s3://out/", "mixed", "research", labels=LABELS)
SHARD = FileEntry("data/texts/part-00000-00001-aa.parquet", "a" * 64, 10, 3)
SUMMARY = Summary(
    Item("nasa", RUN, "r", 1, "finalize", 0, 1, JOB),
    "mixed/research",
    "v1",
    Counts(4, 3, 1, 40, 10),
    (("OBJECT_EMPTY", 1),),
    ((0, 1, "h"),),
    {"texts": (SHARD,)},
    (FileEntry("rejects/part-00000-00001-bb.ndjson", "b" * 64, 5, 1),),
)


def test_the_crate_names_each_file_with_its_checksum() -> None:
    """RO-Crate 1.1: descriptor, root, and every file reachable from it; rights carried through."""
    graph = json.loads(metadata.describe(SUMMARY, mixed.TABLES)["ro-crate-metadata.json"])["@graph"]
    entities = {entity["@id"]: entity for entity in graph}

    assert entities["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    assert entities["./"]["license"] == LABELS["license"]
    assert entities["./"]["name"] == "Box 17"
    assert entities[SHARD.name]["sha256"] == SHARD.sha256
    assert {part["@id"] for part in entities["./"]["hasPart"]} <= entities.keys()


def test_croissant_describes_tables_that_have_files() -> None:
    """One file set and one record set per table, with the fields that Croissant has types for."""
    described = json.loads(metadata.describe(SUMMARY, mixed.TABLES)["croissant.json"])
    fields = {field["name"]: field for field in described["recordSet"][0]["field"]}

    assert [found["@id"] for found in described["distribution"]] == [SHARD.name, "texts-files"]
    assert fields["minhash"]["repeated"] is True
    assert fields["chars"]["dataType"] == "sc:Integer"


def test_no_time_is_made_up() -> None:
    """A date of publication stands there only if the request says one."""
    files = metadata.describe(SUMMARY, mixed.TABLES)

    assert b"datePublished" not in files["ro-crate-metadata.json"]
    assert files == metadata.describe(SUMMARY, mixed.TABLES)
