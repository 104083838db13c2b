"""What an agency's own reader may take of PostgreSQL: bounds that its holder cannot move, and what is told where they fail."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from flux_common.postgres.catalogue import declaration, look, things_in
from flux_common.postgres.doctor import compared
from flux_common.postgres.migrations import READER_CONNECTIONS, create_roles
from flux_devkit.plugin import ROLE_PASSWORD
from flux_devkit.plugin import Database as OneDatabase

READER, FEW = "flux_reader_bounded", 2
STEWARD = "steward_of_this_test"


@pytest.fixture
async def bounded(database: OneDatabase, admin: Any) -> AsyncIterator[str]:
    """The DSN of a reader that is made for this test, with few connections; all is undone, for roles belong to the cluster."""
    await create_roles(database.dsn, {READER: ROLE_PASSWORD}, agencies=["bounded"], reader_connections=FEW)
    yield database.dsn_as(READER, ROLE_PASSWORD)
    await admin.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1", READER)
    await admin.execute(f"DROP ROLE {READER}")
    await create_roles(database.dsn, {})


async def _open_until_refused(dsn: str) -> int:
    held: list[asyncpg.Connection[asyncpg.Record]] = []
    try:
        while len(held) < 20:
            held.append(await asyncpg.connect(dsn))
    except asyncpg.TooManyConnectionsError:
        pass
    finally:
        await asyncio.gather(*(connection.close() for connection in held))
    return len(held)


async def test_a_reader_has_few_connections(bounded: str) -> None:
    """Whatever its holder opens, the others' stay free; and the holder can give itself no more."""
    reader = await asyncpg.connect(bounded)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await reader.execute(f"ALTER ROLE {READER} CONNECTION LIMIT -1")
    others = await _open_until_refused(bounded)
    await reader.close()

    assert others == FEW - 1


async def test_a_reader_cannot_fill_the_disk(bounded: str) -> None:
    """What it sorts beside its memory is bounded, in its own settings and after it took back all that it may."""
    for statement in ("SET temp_file_limit = -1", f"ALTER ROLE {READER} SET temp_file_limit = -1"):
        reader = await asyncpg.connect(bounded)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.execute(statement)
        await reader.close()
    reader = await asyncpg.connect(bounded)
    await reader.execute(f"ALTER ROLE {READER} RESET ALL")
    await reader.close()
    reader = await asyncpg.connect(bounded)
    limit = await reader.fetchval("SHOW temp_file_limit")
    await reader.close()

    assert limit == "256MB"


async def test_more_connections_than_declared_are_a_drift(bounded: str, admin: Any) -> None:
    """The doctor holds each reader to the number of the release, or to the one that it is told of."""
    seen = things_in(await look(admin, ["roles"]))
    drifts = {one.name: one.finding for one in compared(seen, declaration(), 18)}

    assert drifts[READER] == f"connections is {FEW}, declared is {READER_CONNECTIONS}"
    assert list(compared(seen, declaration(reader_connections=FEW), 18)) == []


@pytest.fixture
async def hosted(fresh_postgres: Any) -> AsyncIterator[tuple[str, Any]]:
    """A server whose administrator is no superuser, as some hosts give one: that one's DSN, and a superuser's connection."""
    dsn = fresh_postgres().dsn
    superuser = await asyncpg.connect(dsn)
    await superuser.execute(f"CREATE ROLE {STEWARD} LOGIN CREATEROLE PASSWORD '{ROLE_PASSWORD}'")
    await superuser.execute(f"ALTER DATABASE postgres OWNER TO {STEWARD}")
    yield re.sub(r"//[^@]+@", f"//{STEWARD}:{ROLE_PASSWORD}@", dsn), superuser
    await superuser.close()


async def test_what_an_administrator_may_not_set_is_told(hosted: tuple[str, Any]) -> None:
    """The job does what it may, says what it could not, and the doctor names it until a superuser did it."""
    dsn, superuser = hosted

    async def drifts() -> list[str]:
        seen = things_in(await look(superuser, ["roles"]))
        return [one.name for one in compared(seen, declaration(), 18) if "temp_file_limit" in one.finding]

    left = await create_roles(dsn, {}, agencies=["bounded"])
    without = await drifts()
    await superuser.execute(f"GRANT SET ON PARAMETER temp_file_limit TO {STEWARD}")
    still_left = await create_roles(dsn, {}, agencies=["bounded"])

    assert without == ["flux_reader", READER]
    assert sum("temp_file_limit" in line for line in left) == 2
    assert any("pg_advisory_lock" in line for line in left)
    assert not any("temp_file_limit" in line for line in still_left)
    assert await drifts() == []
