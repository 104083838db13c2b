"""`flux-etl doctor`: is the database what this release declares?"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flux_client.cli import environment
from flux_client.cli.exits import Ended, Exit
from flux_client.cli.options import Format, Output
from flux_client.cli.output import print_line, say, show

if TYPE_CHECKING:
    from flux_common.postgres.doctor import Checkup


def doctor(
    strict: Annotated[
        bool, typer.Option("--strict", help="Strict mode is wanted: a shared reader that can log in is a drift.")
    ] = False,
    agencies_file: Annotated[
        Path | None,
        typer.Option("--agencies", help="The registry: each of its agencies must have a reader of its own."),
    ] = None,
    reader_connections: Annotated[
        int | None,
        typer.Option(help="What the job `roles` has in FLUX_ROLES_READER_CONNECTIONS, where that is not its default."),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Compare the database with what this release declares, and name every difference (exit status 18).

    Roles, memberships, settings, row-level security, policies, grants, functions, views, partitions, keys, migrations and
    the server's release. It reads catalogues alone and changes nothing: the reader's login is enough (FLUX_READER_DSN).
    """
    found = asyncio.run(_examined(strict, agencies_file, reader_connections))
    if output is Format.TABLE:
        _tell(found)
    else:
        show(asdict(found), output)
    if found.drifts:
        hint = "each has its own next step above; `roles`, `migrate` and schema.sql are what this release declares"
        raise Ended(Exit.DRIFTED, f"{len(found.drifts)} differences from what is declared", hint)


async def _examined(strict: bool, agencies_file: Path | None, reader_connections: int | None) -> Checkup:
    from flux_common.auth import load_registry
    from flux_common.postgres.database import Database
    from flux_common.postgres.doctor import examine

    # An old server is one of the things to be told; it must not keep the doctor out.
    settings = environment.reader_settings().model_copy(
        update={"accept_old_server": True, "pool_min": 1, "pool_max": 1}
    )
    agencies = load_registry(environment.agencies_file(agencies_file)).agencies if agencies_file else ()
    database = await Database.open(settings, "flux-etl doctor")
    try:
        return await examine(database, strict=strict, agencies=agencies, reader_connections=reader_connections)
    finally:
        await database.close()


def _tell(found: Checkup) -> None:
    mode = (
        "strict: only agencies' own readers log in" if found.strict else "not strict: flux_reader may choose its agency"
    )
    say(f"PostgreSQL {found.release}, {len(found.readers)} agencies' readers, {mode}")
    for drift in found.drifts:
        print_line(f"{drift.kind}: {drift.name} {drift.finding}")
        print_line(f"  means: {drift.means}")
        print_line(f"  next:  {drift.next_step}")
    if not found.drifts:
        print_line("the database is as declared")
