"""The agenda is an index over open runs: kept with every change of a run, and mended by a sweep that should find nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from flux_checkpoint.adapters.dispatcher import Leases
from flux_checkpoint.adapters.runs import PostgresRuns
from flux_checkpoint.handlers.admissions import AdmissionsHandler
from flux_common.contracts import catalogue, runs
from flux_common.contracts.envelope import body_bytes, headers_for
from flux_common.contracts.requests import RunRequested
from flux_common.kernel.ids import run_id, shard_of
from flux_common.kernel.positions import LaneBatch, Received, TopicPartition
from flux_common.kernel.signals import Signal
from flux_common.postgres.database import Database
from flux_common.postgres.lanes import PostgresLanes

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AGENCY = "nasa"
RUN = run_id(AGENCY, "r-1")


async def _admit(database: Database) -> None:
    """Let the runs lane admit one run."""
    request = RunRequested.model_validate(
        {
            "request_id": "r-1",
            "source": {"uri": "file:///a/"},
            "destination": {"uri": "file:///b/"},
            "content_type": "text",
            "use_case": "research",
        }
    )
    body = runs.RunAdmitted(
        agency_id=AGENCY,
        request_id="r-1",
        run_id=str(RUN),
        request=request,
        request_sha256="cd" * 32,
        run_window=32,
        agency_window=128,
        admitted_at="2026-01-01T00:00:00.000Z",
    )
    headers = headers_for(catalogue.RUN_ADMITTED, event_id=str(UUID(int=7)), source="t", at=NOW)
    lanes = PostgresLanes(database, "checkpoint")
    lane = await lanes.take(TopicPartition(catalogue.RUNS.name, 0), topic_id="id", log_start=0, log_end=9)
    record = Received(lane.tp.at(0), b"k", body_bytes(body), tuple(headers), NOW)
    handler = AdmissionsHandler(lanes, PostgresRuns, timedelta(days=30), Signal())
    await handler.apply(LaneBatch(lane, [record], 1))


async def _forget(database: Database) -> None:
    async with database.transaction([AGENCY]) as connection:
        await connection.execute("DELETE FROM agenda")


async def test_an_admitted_run_is_on_the_agenda_and_a_sweep_finds_nothing(checkpoint_database: Database) -> None:
    """Whoever admits a run puts it on the agenda in the same transaction."""
    await _admit(checkpoint_database)
    leases = Leases(checkpoint_database, "test")
    shard = shard_of(AGENCY)

    assert [key.run_id for key in await leases.due(shard, 10)] == [RUN]
    assert await leases.sweep(shard) == 0


async def test_a_sweep_finds_a_forgotten_run_and_no_shard_but_its_own_does(checkpoint_database: Database) -> None:
    """An open run that the agenda lost is due again after the sweep of its agency's shard, and is told of once."""
    await _admit(checkpoint_database)
    await _forget(checkpoint_database)
    leases = Leases(checkpoint_database, "test")
    own = shard_of(AGENCY)
    found = {shard: await leases.sweep(shard) for shard in range(4)}

    assert found == {shard: int(shard == own) for shard in range(4)}
    assert [key.run_id for key in await leases.due(own, 10)] == [RUN]
    assert await leases.sweep(own) == 0
