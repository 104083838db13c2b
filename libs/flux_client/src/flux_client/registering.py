"""Adding an agency to `agencies.yaml`, so that a person's comments stay and nothing is written that a service would refuse.

The entry is put behind the last one as text, at the same indentation. What results is read as a service reads it, from a
file beside the registry (paths of key sets are relative), and must say exactly what the old file said and the entry. Where
text cannot be added so (a list in flow style, something behind the list), the file is written anew, and its comments go.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import yaml

from flux_common.auth import load_registry, load_trust

_ITEM: Final = re.compile(rb"^agencies:[ \t]*(?:#.*)?\n(?:[ \t]*(?:#.*)?\n)*( *)- ", re.MULTILINE)
EMPTY: Final = b"version: 1\nagencies:\n"


def add_agency(path: Path, entry: Mapping[str, Any], now: datetime) -> bool:
    """Write `entry` into the registry at `path`, which need not exist yet; tell whether its comments are kept.

    Raises ConfigurationRefused with every fault that a service would find; then nothing is changed.
    """
    old = EMPTY
    if path.exists():
        load_registry(path)  # a registry with a fault is not added to
        old = path.read_bytes()
    wanted = {"version": 1, "agencies": [*(yaml.safe_load(old)["agencies"] or ()), dict(entry)]}
    appended = _appended(old, entry)
    kept = _says(appended, wanted)
    _replace(path, appended if kept else _dump(wanted), now)
    return kept


def _appended(old: bytes, entry: Mapping[str, Any]) -> bytes:
    first = _ITEM.search(old)
    indent = first.group(1).decode() if first else ""
    text = _dump([dict(entry)]).decode()
    ended = old if old.endswith(b"\n") else old + b"\n"
    return ended + "".join(f"{indent}{line}\n" for line in text.splitlines()).encode()


def _says(data: bytes, wanted: Mapping[str, Any]) -> bool:
    try:
        return bool(yaml.safe_load(data) == wanted)
    except yaml.YAMLError:
        return False


def _replace(path: Path, data: bytes, now: datetime) -> None:
    """Put `data` in the place of the registry once a service would take it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".agencies-", suffix=".yaml", delete=False) as file:
        file.write(data)
    draft = Path(file.name)
    try:
        load_trust(draft, now)
        draft.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _dump(value: Any) -> bytes:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode()
