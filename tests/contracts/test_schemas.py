"""The published contract is what the models say, and what is released stays as it is."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flux_common.contracts.catalogue import EVENTS, TOPICS
from flux_common.contracts.envelope import headers_for
from flux_common.contracts.export import (
    RELEASED,
    ReleasedSchemaChanged,
    check_released,
    contract_files,
    export,
    read_released,
    schema_path,
)
from flux_common.contracts.schema import schema_id, schema_of
from flux_common.kernel.clock import from_millis


def test_every_generated_file_is_current(repository: Path, tmp_path: Path) -> None:
    """`make schemas` would change nothing."""
    export(tmp_path, release=True)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    committed = {name: (repository / name).read_bytes() for name in made if (repository / name).is_file()}

    assert [name for name in made if made[name] != committed.get(name)] == [], "run `make schemas`"


def test_no_schema_is_left_over(repository: Path) -> None:
    """`schemas/events` holds the events of the catalogue and nothing else."""
    committed = {str(path.relative_to(repository)) for path in (repository / "schemas/events").rglob("*.json")}

    assert committed == {schema_path(spec) for spec in EVENTS.values()}


def test_released_schemas_are_unchanged(repository: Path) -> None:
    """Every released schema still has the bytes it was released with, on disk and as the models make it."""
    released = read_released(repository)
    on_disk = {name: hashlib.sha256((repository / name).read_bytes()).hexdigest() for name in released}

    assert released
    assert on_disk == released
    check_released(contract_files(), released)


def test_a_second_export_writes_nothing(tmp_path: Path) -> None:
    """The export is idempotent."""
    first, second = export(tmp_path), export(tmp_path)

    assert (len(first), second) == (len(contract_files()) + 1, [])


def test_the_export_does_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    """Two processes with different hash seeds write the same bytes."""
    for seed in ("1", "2"):
        root = tmp_path / seed
        subprocess.run(
            [sys.executable, "-m", "flux_common.contracts", "--root", root, "--release"],
            env={"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        )
    one, two = (
        {
            path.relative_to(tmp_path / seed): path.read_bytes()
            for path in (tmp_path / seed).rglob("*")
            if path.is_file()
        }
        for seed in ("1", "2")
    )

    assert one == two


def test_a_changed_released_schema_stops_the_export(tmp_path: Path) -> None:
    """Where a released digest differs, nothing is written and the message names the schema and the remedy."""
    export(tmp_path, release=True)
    path = tmp_path / RELEASED
    path.write_text(path.read_text().replace(path.read_text()[:64], "0" * 64))
    (tmp_path / "schemas/catalogue.json").write_text("{}")
    with pytest.raises(ReleasedSchemaChanged, match=r"v1\.schema\.json.*v2"):
        export(tmp_path, release=True)

    assert (tmp_path / "schemas/catalogue.json").read_text() == "{}"


def test_a_released_schema_may_not_vanish() -> None:
    """An event that is gone from the catalogue is a change too."""
    with pytest.raises(ReleasedSchemaChanged, match=r"events/gone"):
        check_released(contract_files(), {"schemas/events/gone/v1.schema.json": "0" * 64})


@pytest.mark.parametrize("ce_type", EVENTS)
def test_every_object_of_a_schema_is_closed(ce_type: str) -> None:
    """No object of any event takes members that nobody declared, and no text with a pattern takes a line feed."""
    nodes = list(_nodes(schema_of(EVENTS[ce_type])))
    open_objects = [node for node in nodes if node.get("type") == "object" and "additionalProperties" not in node]
    loose_patterns = [node for node in nodes if "pattern" in node and node != {"pattern": "\\n"} and "not" not in node]

    assert (open_objects, loose_patterns) == ([], [])


@pytest.mark.parametrize("ce_type", EVENTS)
def test_an_event_names_its_schema(ce_type: str) -> None:
    """`ce_dataschema` is the `$id` of the event's schema, whose path is the file's."""
    spec = EVENTS[ce_type]
    headers = dict(headers_for(spec, event_id="1", source="flux/test", at=from_millis(0)))

    assert headers["ce_dataschema"].decode() == schema_id(spec) == schema_of(spec)["$id"]
    assert schema_id(spec) == f"flux:{schema_path(spec)}"


def test_the_catalogue_tells_every_topic(repository: Path) -> None:
    """`catalogue.json` has each topic once with everything a topics job or an ACL needs, and each event's schema."""
    catalogue: dict[str, Any] = json.loads((repository / "schemas/catalogue.json").read_bytes())
    told = {topic["name"]: topic for topic in catalogue["topics"]}
    needed = {"key", "events", "producers", "consumers", "kafka_partitions", "retention_ms"} | {
        "cleanup_policy",
        "timestamp_type",
        "record_bytes_max",
    }

    assert list(told) == [topic.name for topic in TOPICS]
    assert all(needed <= topic.keys() for topic in told.values())
    assert all((repository / "schemas" / path).is_file() for path in catalogue["events"].values())
    assert {event for topic in told.values() for event in topic["events"]} == set(catalogue["events"])


def _nodes(schema: Any) -> list[dict[str, Any]]:
    if isinstance(schema, list):
        return [node for item in schema for node in _nodes(item)]
    if not isinstance(schema, dict):
        return []
    return [schema, *(node for name, item in schema.items() if name != "default" for node in _nodes(item))]
