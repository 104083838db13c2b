"""Is a live database what this release declares? Every difference is named, with what it means and the next step.

Theory. Roles, policies and grants are what tenancy rests on, and any administrator can change them in a moment without a
trace. `examine` holds the catalogues to the declaration (catalogue.py), the applied migrations to this release's files, and
the server to the floor of releases; it reads catalogues alone, which every login may, so `flux_reader` is enough, and it
changes nothing. It cannot see what a database owner hides from it: it finds mistakes and their kind, not the cunning.

Three differences are none: a reader that an agency has of its own (strict mode) is held to the one that is declared; whether
`flux_reader` can log in is what strict mode switches, and reported beside the drifts; and an index that is not unique.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flux_common.postgres.catalogue import (
    ANY_READER,
    FIELDS,
    PARTS,
    WRITTEN,
    Declaration,
    Row,
    Things,
    declaration,
    look,
    relation_of,
    things_in,
)
from flux_common.postgres.database import Database, release_fault, release_of
from flux_common.postgres.migrations import READER, migrations, reader_of
from flux_common.postgres.queries import Queries

_SQL = Queries.load("flux_common.postgres", "catalogue.sql")
_VERSION = Queries.load("flux_common.postgres", "database.sql")["server_version"]

ROLES: Final = "run the job `roles` as an administrator, and find out who changed it"
OWNER: Final = "as flux_owner, make it again as schema.sql has it, and find out who changed it"
REMOVE: Final = "take it away as flux_owner or an administrator, and find out who made it"
# What a difference means, and what to do: by kind, then by field, or + for one too many, - for one too few.
MEANINGS: Final[Mapping[str, tuple[str, str]]] = {
    "relations.rls": ("whoever may read the table reads the rows of every agency", OWNER),
    "relations.forced": ("whoever becomes the owner, flux_migrate first of all, reaches the rows of every agency", OWNER),
    "relations.invoker": ("the view shows what its owner may see, not what its caller may", OWNER),
    "relations.owner": ("its owner is not bound by grants", OWNER),
    "relations.part_of": ("a partition is reached beside its table, whose policies do not bind there", OWNER),
    "relations+": ("nobody knows what is in it and who may see that", REMOVE),
    "relations-": ("services will fail where they need it", OWNER),
    "policies+": ("policies add up: a further one can only show more rows", REMOVE),
    "policies-": ("a permissive one missing shows nothing; reader_login missing lets a reader choose its agency", OWNER),
    "policies": ("other rows are seen or written than a role's agencies'", OWNER),
    "grants+": ("a role may do more than its service needs", REMOVE),
    "grants-": ("a service is refused what it needs, and stops", OWNER),
    "functions.definer": ("it runs with its owner's rights", OWNER),
    "functions.settings": ("its search_path is its caller's, who can put other tables and functions in the way", OWNER),
    "functions.definition": ("it does something else than this release's", OWNER),
    "functions+": ("nobody knows what it does", REMOVE),
    "functions": ("it is not this release's", OWNER),
    "triggers": ("writes have effects that this release does not know", REMOVE),
    "openings+": ("somebody may come in, or create things, who is no role of Flux", "run the job `roles` again"),
    "openings-": ("a service cannot come in", "run the job `roles` again"),
    "members+": ("whoever is a member may do all that the role may", "REVOKE the membership, and find out who gave it"),
    "members-": ("flux_migrate cannot migrate", ROLES),
    "overrides": ("it goes before what the role declares, or sets agencies for everybody", "reset it in this database"),
    "roles.mighty": ("row-level security and grants do not bind it", ROLES),
    "roles.login": ("a role that must not, or must, log in", ROLES),
    "roles.member_of": ("it may do all that those roles may", "REVOKE the membership, and run the job `roles`"),
    "roles.settings": (
        "a process may hold its successor up, a reader fill the disk, or names lead to other tables",
        f"{ROLES}; temp_file_limit takes a superuser",
    ),
    "roles.connections": ("an agency's reader may take the connections that services need", ROLES),
    "roles+": ("no service uses it", "drop it, or name it otherwise: flux_ is for roles of Flux"),
    "roles-": ("a service cannot log in", ROLES),
    "constraints": ("rows that contradict an invariant, or a key that tells one agency of another's", OWNER),
    "indexes": ("a key that tells one agency of another's, or slow statements", OWNER),
    "columns": ("statements of this release do not fit", OWNER),
    "schemas": ("things can be put where services look for theirs", OWNER),
    "default_privileges": ("what the next migration makes may be open to others", OWNER),
    "migrations-": ("this release needs them", "run the job `migrate`"),
    "migrations+": ("the schema is newer than this release", "use that release's flux-etl; differences may be its own"),
    "migrations": ("another text was applied under this name", "compare the file with the release that applied it"),
    "server": ("row-level security can be got around on it", "upgrade the server to the release named"),
    "readers": ("its agency cannot read by a login of its own", "run the job `roles` with FLUX_AGENCIES_FILE"),
    "strict": ("its holder can choose whose rows to read", "run the job `roles` with FLUX_ROLES_STRICT=true"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference: of what kind of thing and which, what was found, what that means and what to do."""

    kind: str
    name: str
    finding: str
    means: str
    next_step: str


@dataclass(frozen=True, slots=True)
class Checkup:
    """What `examine` found."""

    release: str
    strict: bool
    readers: Sequence[str]
    drifts: Sequence[Drift]


async def examine(
    database: Database, *, strict: bool = False, agencies: Collection[str] = (), reader_connections: int | None = None
) -> Checkup:
    """Compare the database with the declaration. Raises Unavailable.

    `strict`: the shared reader's login is a drift, too; `agencies`: each of them has a reader of its own;
    `reader_connections`: how many each of these may have where that is not the release's number.
    """
    async with database.transaction() as connection:
        version = int(await connection.fetchval(_VERSION))
        applied = await connection.fetch(_SQL["applied"])
        things = things_in(await look(connection))
    drifts = [
        *_of_server(version),
        *_of_migrations({row["name"]: row["sha256"] for row in applied}),
        *compared(things, declaration(reader_connections=reader_connections), version // 10000),
        *([_drift("strict", READER, "flux_reader can log in")] if strict and _may_choose(things) else []),
        *(
            _drift("readers", name, "is missing")
            for name in sorted(map(reader_of, agencies))
            if name not in things["roles"]
        ),
    ]
    readers = sorted(name for name in things["roles"] if name.startswith(f"{READER}_"))
    return Checkup(release_of(version), not _may_choose(things), readers, drifts)


def compared(things: Things, declared: Declaration, major: int) -> Iterator[Drift]:
    """Yield each difference of what was seen (of some kinds) from the declaration."""
    for kind, seen in things.items():
        wanted = {**declared.things[kind]}
        if kind == "roles":
            reader = wanted.pop(ANY_READER)
            wanted |= {name: reader for name in seen if name.startswith(f"{READER}_")}
        for name in sorted(wanted.keys() - seen.keys()):
            yield _drift(kind, name, "is missing", "-")
        for name in sorted(seen.keys() - wanted.keys()):
            yield from _further(kind, name, seen[name], declared.things["relations"])
        for name in sorted(wanted.keys() & seen.keys()):
            yield from _changed(kind, name, wanted[name], seen[name], same_major=major == declared.major)


def _further(kind: str, name: str, row: Row, relations: Collection[str]) -> Iterator[Drift]:
    """Judge one thing too many: what belongs to a relation that is not declared is said of the relation."""
    if kind in PARTS and relation_of(name, row) not in relations:
        return
    if kind == "indexes" and row["valid"] and not row["definition"].startswith("CREATE UNIQUE"):
        return
    if kind == "relations" and row["part_of"] in relations:
        if not (row["rls"] and row["forced"]):
            yield _drift(kind, name, f"is a part of {row['part_of']} without row-level security", ".part_of")
        return
    yield _drift(kind, name, "is not declared", "+")


def _changed(kind: str, name: str, wanted: Row, seen: Row, *, same_major: bool) -> Iterator[Drift]:
    for field in FIELDS[kind]:
        if (field == WRITTEN and not same_major) or (name, field) == (READER, "login"):
            continue
        if seen[field] != wanted[field]:
            finding = f"{field} is {_said(seen[field])}, declared is {_said(wanted[field])}"
            yield _drift(kind, name, finding, f".{field}")


def _of_server(version: int) -> Iterator[Drift]:
    fault = release_fault(version)
    if fault:
        yield _drift("server", release_of(version), fault)


def _of_migrations(applied: Mapping[str, str]) -> Iterator[Drift]:
    files = {migration.name: migration.sha256 for migration in migrations()}
    yield from (_drift("migrations", name, "is not applied", "-") for name in files.keys() - applied.keys())
    yield from (_drift("migrations", name, "is not known here", "+") for name in applied.keys() - files.keys())
    for name in sorted(files.keys() & applied.keys()):
        if files[name] != applied[name]:
            yield _drift("migrations", name, "was applied with another text")


def _may_choose(things: Things) -> bool:
    return bool(things["roles"].get(READER, {}).get("login"))


def _drift(kind: str, name: str, finding: str, how: str = "") -> Drift:
    means, next_step = MEANINGS.get(kind + how) or MEANINGS.get(kind) or MEANINGS[f"{kind}+"]
    return Drift(kind, name, finding, means, next_step)


def _said(value: Any) -> str:
    """Return a value in a person's words."""
    match value:
        case None | []:
            return "none"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(str, value))
    return str(value)
