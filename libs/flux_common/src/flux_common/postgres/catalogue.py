"""What a database is, as its catalogues say, and what this release declares that it is.

Theory. `declared.json` is the declaration: what the catalogues said of a database that was just made by `roles` and the
migrations. It is generated (`make schema-sql`) and held to them by a test, so there is one source, and a live database can
be compared without a second server. What may differ between two sound installations is not declared: comments, storage
options of tables, indexes that are not unique, bodies of the catalogue's texts on another major release.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from flux_common.kernel.ids import sha256_hex
from flux_common.postgres.queries import Queries

_SQL = Queries.load("flux_common.postgres", "catalogue.sql")
DECLARED: Final = "declared.json"
# An agency's own reader stands for all of them, under this name.
ANY_READER: Final = "flux_reader_*"
# What is declared of each kind of thing. A thing without fields is there or not.
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "schemas": ("owner",),
    "relations": ("kind", "owner", "rls", "forced", "persistence", "invoker", "part_of"),
    "columns": ("type", "required"),
    "constraints": ("definition", "validated"),
    "indexes": ("relation", "definition", "valid"),
    "policies": ("permissive", "command", "roles", "using", "checked"),
    "functions": ("owner", "definer", "settings", "definition"),
    "triggers": ("definition",),
    "default_privileges": ("acl",),
    "grants": (),
    "openings": (),
    "roles": ("login", "mighty", "member_of", "settings", "connections"),
    "members": (),
    "overrides": (),
}
# What belongs to a relation, and is nothing of its own.
PARTS: Final = ("columns", "constraints", "indexes", "policies", "triggers")
# Texts that PostgreSQL writes from what it stored, and may write otherwise in another major release.
WRITTEN: Final = "definition"

Row = dict[str, Any]
Things = dict[str, dict[str, Row]]


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a database of this release is: things by kind and name, and the major release that said so."""

    major: int
    things: Things


async def look(connection: Any, kinds: Sequence[str] = tuple(FIELDS)) -> dict[str, list[Row]]:
    """Return what the catalogues say; the session's search_path is empty afterwards."""
    await connection.fetchval(_SQL["qualified"])
    return {kind: [dict(row) for row in await connection.fetch(_SQL[kind])] for kind in kinds}


def things_in(seen: Mapping[str, Sequence[Row]]) -> Things:
    """Return what is declared of what was seen, by kind and name."""
    return {
        kind: {_name(kind, row): _fields(kind, row) for row in rows if kind != "relations" or row["kind"] not in "iI"}
        for kind, rows in seen.items()
    }


def declaration(*, reader_connections: int | None = None) -> Declaration:
    """Return this release's declaration; `reader_connections` where the installation gives readers another number of them."""
    read = json.loads(resources.files("flux_common.postgres").joinpath(DECLARED).read_text("utf-8"))
    if reader_connections is not None:
        read["things"]["roles"][ANY_READER]["connections"] = str(reader_connections)
    return Declaration(read["major"], read["things"])


def written(declared: Declaration) -> str:
    """Return the text of `declared.json`, one thing a line; of readers with their own login one stands for all."""
    roles = declared.things["roles"]
    readers = [name for name in roles if name.startswith("flux_reader_")]
    kept = {name: row for name, row in roles.items() if name not in readers} | {ANY_READER: roles[readers[0]]}
    kinds = [
        f'"{kind}": {{\n' + ",\n".join(f"{json.dumps(n)}: {json.dumps(row)}" for n, row in sorted(rows.items())) + "\n}"
        for kind, rows in (declared.things | {"roles": kept}).items()
    ]
    return f'{{"major": {declared.major},\n"things": {{\n' + ",\n".join(kinds) + "\n}}\n"


def relation_of(name: str, row: Row) -> str:
    """Return the relation that one of `PARTS` belongs to."""
    return str(row.get("relation") or name.rpartition(".")[0])


def _name(kind: str, row: Row) -> str:
    if kind in ("grants", "openings"):
        return f"{row['privilege']} on {row['name']} to {row['grantee']}"
    return f"{row['kind']} of {row['name']}" if kind == "default_privileges" else str(row["name"])


def _fields(kind: str, row: Row) -> Row:
    made = {**row}
    if kind == "relations":
        made["invoker"] = row["kind"] not in "vm" or "security_invoker=true" in (row["options"] or [])
    if kind == "functions":
        made["definition"] = sha256_hex(row["definition"].encode())
    if "settings" in made:
        made["settings"] = sorted(row["settings"] or [])
    return {field: made[field] for field in FIELDS[kind]}
