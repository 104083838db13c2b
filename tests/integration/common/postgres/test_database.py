"""The one way to a connection: agencies are there inside a transaction and nowhere else, and failures say what they are."""

# ruff: noqa: PT012 - what a transaction raises depends on several statements of its block
from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import (
    Fenced,
    FluxError,
    InvariantBroken,
    IsolationViolation,
    Overloaded,
    Unavailable,
)
from flux_common.observability import metrics
from flux_common.postgres import database as room
from flux_common.postgres.database import Database
from flux_common.postgres.sqlstates import Contended, RecordRefused
from flux_common.settings import PostgresSettings

SETTING = "SELECT coalesce(current_setting('flux.current_agency_ids', true), ''),"
SETTING += " coalesce(current_setting('flux.current_agency_id', true), '')"
RUN = """
INSERT INTO flux.runs (agency_id, run_id, request_id, request, request_sha256, state, run_window, agency_window,
                       kafka_partition, kafka_offset, admitted_at, deadline)
VALUES ($1, gen_random_uuid(), 'r', '{}', sha256('x'), 'ADMITTED', 1, 1, 0, $2, now(), now())
"""
REJECT = "INSERT INTO rejections (agency_id, topic, kafka_partition, kafka_offset, code) VALUES ($1, 't', 0, $2, 'X')"


@pytest.fixture
async def ingest(open_as: Any) -> AsyncIterator[Database]:
    """Ingest's login with a pool of one connection."""
    return await open_as("flux_ingest", pool_max=1)


async def pid_of(database: Database) -> int:
    """Return the backend that a transaction gets."""
    async with database.transaction() as connection:
        return int(await connection.fetchval("SELECT pg_backend_pid()"))


async def test_agencies_are_set_inside_and_gone_afterwards(ingest: Database) -> None:
    """The list is sorted into the transaction; the next one on the same connection has none."""
    async with ingest.transaction(["nasa", "loc"]) as connection:
        inside = tuple(await connection.fetchrow(SETTING))
    async with ingest.transaction() as connection:
        after = tuple(await connection.fetchrow(SETTING))

    assert (inside, after) == (("loc,nasa", ""), ("", ""))


async def test_agencies_are_gone_after_a_failure_too(ingest: Database) -> None:
    """A transaction that is given up leaves neither rows nor agencies on the connection, which goes on."""
    before = await pid_of(ingest)
    with pytest.raises(Fenced):
        async with ingest.transaction(["nasa"]) as connection:
            await connection.execute(REJECT, "nasa", 1)
            raise Fenced(Code.LANE_FENCED, "x")
    async with ingest.transaction() as connection:
        after = tuple(await connection.fetchrow(SETTING))
    async with ingest.transaction(["nasa"]) as connection:
        rows = await connection.fetchval("SELECT count(*) FROM rejections")

    assert (after, rows) == (("", ""), 0)
    assert await pid_of(ingest) == before


async def test_a_reader_has_one_agency(open_as: Any) -> None:
    """Readers name exactly one; two or none are a mistake, not an empty answer."""
    reader = await open_as("flux_reader")
    async with reader.transaction(["nasa"], reader=True) as connection:
        inside = tuple(await connection.fetchrow(SETTING))
    for agencies in ([], ["loc", "nasa"]):
        with pytest.raises(ValueError, match="one agency"):
            async with reader.transaction(agencies, reader=True):
                pass

    assert inside == ("", "nasa")


async def test_what_is_no_agency_id_never_reaches_the_list(ingest: Database) -> None:
    """A comma inside a name would make it two agencies: whatever breaks the grammar is refused, loudly."""
    for agencies in (["nasa,loc"], [""], "nasa", ["nasa", "../x"], ["x"], ["nasa\n"]):
        with pytest.raises(InvariantBroken) as refused:
            async with ingest.transaction(agencies):
                pytest.fail(f"entered with {agencies!r}")

        assert refused.value.code == Code.ISOLATION_VIOLATION


async def test_a_connection_that_comes_with_an_agency_is_refused(ingest: Database, admin: Any, open_as: Any) -> None:
    """A setting that somebody left (a role's default here, a pooler's session elsewhere) stops the process."""
    name = await admin.fetchval("SELECT current_database()")
    for setting in ("flux.current_agency_ids", "flux.current_agency_id"):
        await admin.execute(f"ALTER ROLE flux_audit IN DATABASE {name} SET {setting} = 'nasa'")
        with pytest.raises(InvariantBroken) as refused:
            await open_as("flux_audit")
        await admin.execute(f"ALTER ROLE flux_audit IN DATABASE {name} RESET ALL")

        assert refused.value.code == Code.ISOLATION_VIOLATION


AGENCIES = ("nasa", "loc", "esa", "nara", "usgs")
TASKS = 240


class Interleaving:
    """Tasks of several agencies on one connection, each cancelled after so many steps of the loop, or never."""

    def __init__(self, database: Database, chance: random.Random) -> None:
        self.database, self.chance = database, chance
        self.seen: list[tuple[str, set[str], tuple[str, str]]] = []
        self.leftovers: list[tuple[str, str]] = []

    async def work(self, agency: str, number: int, *, reader: bool) -> None:
        """See what is there before an agency is set, and then what its transaction sees."""
        async with self.database.transaction() as connection:
            self.leftovers.append(tuple(await connection.fetchrow(SETTING)))
        async with self.database.transaction([agency], reader=reader) as connection:
            if not reader:
                await connection.execute(REJECT, agency, number)
            await asyncio.sleep(self.chance.random() * 0.001)
            rows = await connection.fetch(f"SELECT agency_id FROM {'flux.runs' if reader else 'rejections'}")
            found = {row["agency_id"] for row in rows}
            self.seen.append((agency, found, tuple(await connection.fetchrow(SETTING))))

    async def run(self, *, reader: bool) -> list[BaseException]:
        """Let all of them go, cancel a third at any step that they are at; return what failed otherwise."""
        tasks = [
            asyncio.create_task(self.work(self.chance.choice(AGENCIES), number, reader=reader))
            for number in range(TASKS)
        ]
        for task in self.chance.sample(tasks, TASKS // 3):
            for _ in range(self.chance.randrange(12)):
                await asyncio.sleep(0)
            if self.chance.random() < 0.5:
                await asyncio.sleep(self.chance.random() * 0.003)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return [problem for task in tasks if not task.cancelled() and (problem := task.exception())]


@pytest.mark.parametrize("role", ["flux_ingest", "flux_reader"])
async def test_agencies_never_see_each_other_on_one_connection(open_as: Any, admin: Any, role: str) -> None:
    """240 tasks of five agencies on a pool of one, a third cancelled anywhere: no row crosses over, no setting is left."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    for number, agency in enumerate(AGENCIES):
        await admin.execute(RUN, agency, number)
    violations = metrics.isolation_violations._value.get()
    database = await open_as(role, pool_max=1)
    lives = Interleaving(database, random.Random(seed))
    failures = await lives.run(reader=role == "flux_reader")
    async with database.transaction() as connection:
        lives.leftovers.append(tuple(await connection.fetchrow(SETTING)))

    assert failures == []
    assert [seen for seen in lives.seen if seen[1] != {seen[0]} or set(seen[2]) != {"", seen[0]}] == []
    assert set(lives.leftovers) == {("", "")}
    assert len(lives.seen) >= TASKS - TASKS // 3
    assert metrics.isolation_violations._value.get() == violations


async def test_a_cancelled_transactions_connection_is_ended(ingest: Database) -> None:
    """Whether it committed is for who asks next; the connection itself is never used again."""
    before = await pid_of(ingest)
    entered = asyncio.Event()

    async def work() -> None:
        async with ingest.transaction(["nasa"]) as connection:
            await connection.execute(REJECT, "nasa", 1)
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with ingest.transaction(["nasa"]) as connection:
        rows = await connection.fetchval("SELECT count(*) FROM rejections")

    assert await pid_of(ingest) != before
    assert rows == 0


async def test_a_cancellation_is_not_swallowed_by_a_lost_connection(ingest: Database, admin: Any) -> None:
    """A task that is cancelled after its connection died ends as cancelled, not as one that shall try again."""
    entered = asyncio.Event()

    async def work() -> None:
        async with ingest.transaction() as connection:
            await admin.execute("SELECT pg_terminate_backend($1)", await connection.fetchval("SELECT pg_backend_pid()"))
            await asyncio.sleep(0.1)  # the client hears of it
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await pid_of(ingest) > 0


async def test_what_the_block_raises_outlives_the_connection(ingest: Database, admin: Any) -> None:
    """An invariant that broke is told as such even if the connection died meanwhile."""
    with pytest.raises(InvariantBroken) as told:
        async with ingest.transaction() as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            await admin.execute("SELECT pg_terminate_backend($1)", pid)
            await asyncio.sleep(0.05)
            raise InvariantBroken(Code.INVARIANT_BROKEN, "mine")

    assert told.value.message == "mine"
    assert await pid_of(ingest) != pid


async def test_a_killed_backend_is_an_outage_and_the_pool_goes_on(ingest: Database, admin: Any) -> None:
    """The statement that meets a dead connection says Unavailable; the next transaction gets a new one."""
    with pytest.raises(Unavailable) as lost:
        async with ingest.transaction() as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            await admin.execute("SELECT pg_terminate_backend($1)", pid)
            await connection.fetchval("SELECT pg_sleep(5)")

    assert lost.value.code == Code.DATABASE_UNAVAILABLE
    assert await pid_of(ingest) != pid


async def test_a_lost_connection_at_the_next_statement_is_an_outage_too(ingest: Database, admin: Any) -> None:
    """The client noticed the loss before the next statement: the driver's own complaint is an outage as well."""
    with pytest.raises(Unavailable):
        async with ingest.transaction() as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            await admin.execute("SELECT pg_terminate_backend($1)", pid)
            await asyncio.sleep(0.05)
            await connection.fetchval("SELECT 1")


async def test_an_idle_transaction_is_ended_by_the_server(open_as: Any) -> None:
    """A transaction that stands still loses its connection (25P03), and that is an outage."""
    database = await open_as("flux_ingest", idle_in_transaction_timeout_ms=100)
    with pytest.raises(Unavailable):
        async with database.transaction() as connection:
            await asyncio.sleep(0.4)
            await connection.fetchval("SELECT 1")


async def test_a_statement_that_takes_too_long_is_an_outage_and_the_connection_goes_on(open_as: Any) -> None:
    """57014: nothing was changed, the same batch is tried again."""
    database = await open_as("flux_ingest", pool_max=1, statement_timeout_ms=100)
    before = await pid_of(database)
    with pytest.raises(Unavailable) as ended:
        async with database.transaction() as connection:
            await connection.fetchval("SELECT pg_sleep(5)")

    assert "57014" in ended.value.message
    assert await pid_of(database) == before


async def test_a_full_pool_is_an_overload(ingest: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """All connections in use: there is no room at present, which is not an outage of PostgreSQL."""
    monkeypatch.setattr(room, "ACQUIRE_SECONDS", 0.1)
    async with ingest.transaction():
        with pytest.raises(Overloaded):
            async with ingest.transaction():
                pass
    assert await pid_of(ingest) > 0


async def test_a_server_that_is_not_there_is_an_outage(password_file: Path) -> None:
    """No PostgreSQL: Unavailable, at the start as later."""
    nowhere = PostgresSettings(dsn="postgresql://flux_ingest@127.0.0.1:1/flux", password_file=password_file)
    with pytest.raises(Unavailable) as refused:
        await Database.open(nowhere, "test")

    assert refused.value.code == Code.DATABASE_UNAVAILABLE


async def test_an_error_of_the_block_is_not_taken_for_an_outage(ingest: Database) -> None:
    """A file that is missing, or a wrong call of the driver, is a fault of ours: it ends the process as it is."""
    with pytest.raises(FileNotFoundError):
        async with ingest.transaction():
            Path("/nowhere/at/all").read_text()
    with pytest.raises(asyncpg.InterfaceError):
        async with ingest.transaction() as connection:
            await connection.fetchval("SELECT $1::int, $2::int", 1)


async def test_a_value_that_the_database_cannot_hold_is_the_records_fault(ingest: Database) -> None:
    """Whether the driver or the server refuses a value: the record is refused, and nobody waits for better times."""
    bad = [("$1::int", 2**40), ("$1::text", "\ud800"), ("$1::text", "a\0b"), ("1 / $1::int", 0)]
    for expression, value in bad:
        with pytest.raises(RecordRefused):
            async with ingest.transaction() as connection:
                await connection.fetchval(f"SELECT {expression}", value)


async def test_another_agencys_row_is_a_violation(ingest: Database) -> None:
    """Row-level security refuses the write: the process stops (42501)."""
    with pytest.raises(IsolationViolation):
        async with ingest.transaction(["nasa"]) as connection:
            await connection.execute(REJECT, "loc", 1)


async def test_a_commit_that_was_none_is_not_taken_for_one(ingest: Database) -> None:
    """Whoever swallows a statement's error gets ROLLBACK for an answer to COMMIT: that must not look like success."""
    with pytest.raises(InvariantBroken) as told:
        async with ingest.transaction(["nasa"]) as connection:
            await connection.execute(REJECT, "nasa", 1)
            with pytest.raises(asyncpg.PostgresError):
                await connection.execute(REJECT, "nasa", 1)

    assert told.value.code == Code.INVARIANT_BROKEN


async def test_a_statement_in_a_broken_transaction_ends_the_process(ingest: Database) -> None:
    """25P02 only follows an error that was swallowed: a fault of ours, so it is not translated."""
    with pytest.raises(asyncpg.InFailedSQLTransactionError):
        async with ingest.transaction(["nasa"]) as connection:
            with pytest.raises(asyncpg.PostgresError):
                await connection.execute("SELECT 1 / 0")
            await connection.execute("SELECT 1")


async def test_a_table_that_a_migration_changed_costs_one_retry(ingest: Database, admin: Any) -> None:
    """A statement prepared before a *pre* migration fails once, as a race; tried again it works, and nobody restarts."""

    async def read() -> list[str]:
        async with ingest.transaction(["nasa"]) as connection:
            return list((await connection.fetch("SELECT r.* FROM rejections r"))[0].keys())

    async with ingest.transaction(["nasa"]) as connection:
        await connection.execute(REJECT, "nasa", 1)
    before = await read()
    await admin.execute("ALTER TABLE flux_ingest.rejections ADD COLUMN more int")
    with pytest.raises(Contended):
        await read()

    assert await read() == [*before, "more"]


async def test_a_deadlock_is_a_race(open_as: Any, admin: Any) -> None:
    """40P01: one of two goes on, the other tries again."""
    await admin.execute("CREATE TABLE pair (n int); INSERT INTO pair VALUES (1), (2); GRANT ALL ON pair TO flux_ingest")
    await admin.execute("GRANT USAGE ON SCHEMA public TO flux_ingest")
    database = await open_as("flux_ingest", pool_max=2)
    both = asyncio.Barrier(2)

    async def lock(first: int, second: int) -> None:
        async with database.transaction() as connection:
            await connection.execute("SELECT FROM public.pair WHERE n = $1 FOR UPDATE", first)
            await both.wait()
            await connection.execute("SELECT FROM public.pair WHERE n = $1 FOR UPDATE", second)

    results = await asyncio.gather(lock(1, 2), lock(2, 1), return_exceptions=True)

    assert sorted(type(result).__name__ for result in results) == ["Contended", "NoneType"]


async def test_an_old_server_is_refused(settings_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the release that mends row-level security nothing starts, unless a setting says otherwise."""
    settings = settings_for("flux_ingest")
    monkeypatch.setattr(room, "VERSION_FLOOR", dict.fromkeys(room.VERSION_FLOOR, 999_999))
    with pytest.raises(FluxError) as refused:
        await Database.open(settings, "test")
    accepted = await Database.open(settings.model_copy(update={"accept_old_server": True}), "test")
    await accepted.close()

    assert refused.value.code == Code.SETTINGS_INVALID


async def test_closing_does_not_wait_for_ever(ingest: Database) -> None:
    """A connection still in use is cut off after the grace."""
    entered = asyncio.Event()

    async def work() -> None:
        async with ingest.transaction() as connection:
            entered.set()
            await connection.fetchval("SELECT pg_sleep(60)")

    task = asyncio.create_task(work())
    await entered.wait()
    await ingest.close(grace=0.1)
    with pytest.raises(Unavailable):
        await task
