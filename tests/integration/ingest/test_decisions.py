"""Ingest's rows: what is saved is known again, to the agency that saved it and to nobody else."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import IsolationViolation
from flux_common.kernel.positions import Lane, LaneBatch, TopicPartition
from flux_common.postgres.database import Database
from flux_ingest.adapters.decisions import PostgresDecisions
from flux_ingest.domain.model import (
    Accepted,
    Asked,
    DeadLettered,
    Decision,
    Holder,
    Kind,
    Known,
    Redelivered,
    Rejected,
    Repeated,
    SingleUse,
)

TP = TopicPartition("flux.nasa.run.requests.v1", 2)
BATCH = LaneBatch(Lane("ingest", TP, "id", 1, 0), (), 100)
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def asked(offset: int, name: str, agency_id: str = "nasa", command_id: str | None = None, use: int = 0) -> Asked:
    """Return what is asked at `offset`, with a single use of its own unless `use` names one."""
    single = SingleUse(f"{use or offset + 1:064x}", NOW + timedelta(days=offset))
    kind = Kind.RUN if command_id is None else Kind.COMMAND
    return Asked(TP.at(offset), kind, agency_id, name, command_id, f"{offset:064x}", single)


def accepted(one: Asked) -> Accepted:
    """Return its acceptance."""
    return Accepted(one, one.single_use)


async def save(database: Database, decisions: list[Decision], agency_id: str = "nasa") -> None:
    """Save in a transaction of the agency."""
    async with database.transaction([agency_id]) as connection:
        await PostgresDecisions(connection, agency_id).save(decisions, NOW)


async def known(database: Database, findings: list[Asked | Rejected | DeadLettered], agency_id: str = "nasa") -> Known:
    """Ask in a transaction of the agency."""
    async with database.transaction([agency_id]) as connection:
        return await PostgresDecisions(connection, agency_id).known(BATCH, findings)


async def test_what_is_saved_is_known_again(ingest_database: Database) -> None:
    """Acceptances by id, uses by digest, refusals by position; repetitions, dead letters and redeliveries leave no row."""
    run, command = asked(1, "r-1"), asked(2, "r-1", command_id="c-1")
    refused = Rejected(TP.at(3), Kind.RUN, Code.SCHEMA_VIOLATION, True)
    more = [Repeated(asked(4, "r-1"), TP.at(1)), DeadLettered(TP.at(5), Code.NOT_UTF8), Redelivered(TP.at(6), None)]
    await save(ingest_database, [accepted(run), accepted(command), refused, *more])
    found = await known(ingest_database, [run, command, refused, asked(7, "r-9")])

    holders = {one.name: Holder(one.sha256, one.position) for one in (run, command)}
    assert found.requests == {"r-1": holders["r-1"]}
    assert found.commands == {"c-1": holders["c-1"]}
    assert found.uses == {f"{n + 1:064x}": Holder(f"{n:064x}", TP.at(n)) for n in (1, 2)}
    assert found.rejected == {TP.at(3): "SCHEMA_VIOLATION"}


async def test_an_accepted_id_is_known_of_a_refused_record_too(ingest_database: Database) -> None:
    """So that a record which was accepted once is known again, whatever it looks like now."""
    await save(ingest_database, [accepted(asked(1, "r-1"))])
    found = await known(ingest_database, [Rejected(TP.at(1), Kind.RUN, Code.KEYS_STALE, False, "r-1")])

    assert found.requests["r-1"].position == TP.at(1)


async def test_an_agency_knows_nothing_of_another(ingest_database: Database) -> None:
    """The same ids of another agency are free."""
    await save(ingest_database, [accepted(asked(1, "r-1", "loc"))], "loc")

    assert await known(ingest_database, [asked(1, "r-1")]) == Known()


async def test_the_database_refuses_rows_of_another_agency(ingest_database: Database) -> None:
    """Even a store that is opened for the wrong agency cannot write into it: row-level security stops it."""
    with pytest.raises(IsolationViolation):
        async with ingest_database.transaction(["nasa"]) as connection:
            await PostgresDecisions(connection, "loc").save([accepted(asked(1, "r-1", "loc"))], NOW)


async def test_the_lock_is_the_agencys(ingest_database: Database) -> None:
    """While one transaction holds an agency's lock another of the agency waits, and one of another agency does not."""
    order: list[str] = []

    async def follow(agency_id: str) -> None:
        async with ingest_database.transaction([agency_id]) as connection:
            await PostgresDecisions(connection, agency_id).lock()
            order.append(agency_id)

    async with ingest_database.transaction(["nasa"]) as connection:
        await PostgresDecisions(connection, "nasa").lock()
        waiting = asyncio.create_task(follow("nasa"))
        await asyncio.wait_for(follow("loc"), 10)
        order.append("first ends")
    await waiting

    assert order == ["loc", "first ends", "nasa"]


async def test_forgetting_is_bounded_and_oldest_first(ingest_database: Database) -> None:
    """Only what has expired goes, at most as many as asked for."""
    await save(ingest_database, [accepted(asked(n, f"r-{n}")) for n in range(6)])
    later = NOW + timedelta(days=4, hours=1)
    async with ingest_database.transaction(["nasa"]) as connection:
        store = PostgresDecisions(connection, "nasa")
        steps = [await store.forget_uses(later, 3) for _ in range(3)]
    left = (await known(ingest_database, [asked(n, "x") for n in range(6)])).uses

    assert steps == [3, 2, 0]
    assert list(left) == [f"{6:064x}"]
