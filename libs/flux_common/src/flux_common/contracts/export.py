"""Writing the published contract: `schemas/` and `docs/error-codes.md`.

Everything here is made from the models, the catalogue and the codes, the same bytes each time. A schema whose digest
stands in `released.sha256` is never written differently: others have built on it. Then nothing is written at all.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from flux_common.contracts.asyncapi import asyncapi
from flux_common.contracts.catalogue import EVENTS, TOPICS, EventSpec, TopicSpec
from flux_common.contracts.schema import schema_of
from flux_common.kernel.codes import Code
from flux_common.kernel.ids import sha256_hex

RELEASED: Final = "schemas/released.sha256"
_REMEDY: Final = (
    "a released schema never changes: publish a v2 of the event beside it. "
    "Only if no installation has it yet, remove its line from schemas/released.sha256 and run "
    "`make schemas RELEASE=--release`."
)


class ReleasedSchemaChanged(Exception):
    """A schema that others have built on would be written differently."""


def export(root: Path, *, release: bool = False) -> list[Path]:
    """Write the contract below `root`, and return the files whose bytes changed.

    With `release`, schemas that are not yet released are from now on.

    Raises:
        ReleasedSchemaChanged: nothing was written.
    """
    files = contract_files()
    released = read_released(root)
    check_released(files, released)
    if release:
        released = {name: sha256_hex(files[name]) for name in map(schema_path, EVENTS.values())}
    files[RELEASED] = _released_file(released)
    return [path for name, data in files.items() if _write(path := root / name, data)]


def contract_files() -> dict[str, bytes]:
    """Return every generated file but `released.sha256`: its path from the repository's root, and its bytes."""
    schemas = {schema_path(spec): _json(schema_of(spec)) for spec in EVENTS.values()}
    return {
        "schemas/catalogue.json": _json(catalogue()),
        "schemas/asyncapi.json": _json(asyncapi()),
        "docs/error-codes.md": error_codes().encode(),
    } | schemas


def schema_path(spec: EventSpec) -> str:
    """Return where an event's schema lies, from the repository's root."""
    return f"schemas/events/{spec.name}/v1.schema.json"


def read_released(root: Path) -> dict[str, str]:
    """Return the digest of each released schema, by its path from the repository's root."""
    path = root / RELEASED
    lines = path.read_text().splitlines() if path.exists() else []
    return {f"schemas/{name}": digest for digest, name in (line.split("  ", 1) for line in lines)}


def check_released(files: dict[str, bytes], released: dict[str, str]) -> None:
    """Compare the released schemas with what would be written.

    Raises:
        ReleasedSchemaChanged: one differs, or is gone.
    """
    changed = [name for name, digest in released.items() if sha256_hex(files.get(name, b"")) != digest]
    if changed:
        raise ReleasedSchemaChanged(f"{', '.join(changed)}: {_REMEDY}")


def catalogue() -> dict[str, Any]:
    """Return the topics and events as data."""
    return {
        "topics": [_topic(topic) for topic in TOPICS],
        "events": {ce_type: schema_path(spec).removeprefix("schemas/") for ce_type, spec in sorted(EVENTS.items())},
    }


def error_codes() -> str:
    """Return the page that explains every code."""
    head = (
        "# Error codes\n\nEvery code that Flux says to anyone. Made by `make schemas` from `flux_common.kernel.codes`."
    )
    rows = "\n".join(f"| `{code.value}` | {code.meaning} |" for code in Code)
    return f"{head}\n\n| code | meaning |\n|---|---|\n{rows}\n"


def _topic(topic: TopicSpec) -> dict[str, Any]:
    return asdict(topic) | {
        "events": [event.ce_type for event in topic.events],
        "per_agency": topic.per_agency,
    }


def _released_file(released: dict[str, str]) -> bytes:
    """Return what `sha256sum --check` reads inside `schemas/`."""
    return "".join(f"{digest}  {name.removeprefix('schemas/')}\n" for name, digest in sorted(released.items())).encode()


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _write(path: Path, data: bytes) -> bool:
    if path.exists() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return True
