"""Putting checkpoint together: two lane loops, four dispatchers by lease, four relays by lease."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from flux_checkpoint.adapters.dispatcher import Leases, PostgresDispatch
from flux_checkpoint.adapters.expiry import PostgresExpiry
from flux_checkpoint.adapters.retention import Retentions
from flux_checkpoint.adapters.runs import PostgresRuns
from flux_checkpoint.domain.dispatch import Patience
from flux_checkpoint.domain.judge import Backoff as Pause
from flux_checkpoint.handlers.admissions import AdmissionsHandler
from flux_checkpoint.handlers.dispatcher import Dispatcher, Rooms
from flux_checkpoint.handlers.expiry import Expiry, Keeping
from flux_checkpoint.handlers.figures import watch_runs
from flux_checkpoint.handlers.reports import ReportsHandler
from flux_checkpoint.settings import CheckpointSettings, DispatchSettings, ExpirySettings
from flux_common.contracts import catalogue
from flux_common.kernel.ids import SHARDS
from flux_common.kernel.signals import Signal
from flux_common.runtime.lane_service import lane_parts
from flux_common.runtime.retry import jittered
from flux_common.runtime.service import Jobs, Service

_READ = (catalogue.RUNS, catalogue.PROGRESS)
_WRITTEN = (catalogue.WORK, catalogue.FENCES, catalogue.AUDIT, catalogue.RELAY_CURSORS)
TOPICS = tuple(topic.name for topic in _READ + _WRITTEN)


@asynccontextmanager
async def build(service: Service[CheckpointSettings]) -> AsyncIterator[Jobs]:
    """Open what checkpoint needs and yield its loops."""
    settings = service.settings.dispatch
    backoff, changed = backoff_of(settings), Signal()
    retentions = retentions_of(service.settings)
    async with lane_parts(service, TOPICS) as parts:
        ttl = timedelta(days=settings.run_ttl_days)
        parts.add_lanes(catalogue.CHECKPOINT_RUNS, AdmissionsHandler(parts.lanes, PostgresRuns, ttl, changed))
        reports = ReportsHandler(parts.lanes, PostgresRuns, backoff, changed)
        parts.add_lanes(catalogue.CHECKPOINT_PROGRESS, reports)
        parts.add_relays()
        leases, patience = Leases(parts.database, parts.holder), patience_of(settings)
        rooms = Rooms(
            runs=PostgresRuns,
            dispatch=lambda connection: PostgresDispatch(connection, patience),
            keep=retentions.runs,
            backoff=backoff,
        )
        for shard in range(SHARDS):
            dispatcher = Dispatcher(
                parts.database,
                leases,
                shard,
                rooms,
                changed.subscribe(),
                parts.committed,
            )
            parts.jobs[f"dispatcher-{shard}"] = dispatcher.run(service.stopping)
        parts.jobs["figures"] = watch_runs(service, leases)
        keeping = keeping_of(service.settings.expiry, retentions)
        expiry = Expiry(parts.database, PostgresExpiry, keeping, parts.committed)
        parts.jobs["expiry"] = expiry.run(lambda: pause_and_look(service, retentions))
        yield parts.jobs


def patience_of(settings: DispatchSettings) -> Patience:
    """Return how long items may be silent."""
    return Patience(
        stall_after=timedelta(seconds=settings.stall_after_s),
        slice_wall_max=timedelta(seconds=settings.slice_wall_max_s),
        queued_max=timedelta(seconds=settings.queued_max_s),
    )


def retentions_of(settings: CheckpointSettings) -> Retentions:
    """Return how long each agency's rows are kept. Raises ConfigurationRefused."""
    runs, events = timedelta(days=settings.dispatch.keep_days), timedelta(days=settings.expiry.events_keep_days)
    return Retentions(settings.expiry.agencies_file, runs, events)


async def pause_and_look(service: Service[CheckpointSettings], retentions: Retentions) -> bool:
    """Wait for the next pass and look at the registry; return False when the process stops."""
    goes_on = await service.pause(service.settings.expiry.interval_ms / 1000)
    if goes_on:
        await asyncio.to_thread(retentions.refresh)  # a large registry takes seconds
    return goes_on


def keeping_of(settings: ExpirySettings, retentions: Retentions) -> Keeping:
    """Return how long history is kept, and how much goes in one step."""
    return Keeping(retentions.events, settings.events_a_step, settings.runs_a_step)


def backoff_of(settings: DispatchSettings) -> Pause:
    """Return the pause before an attempt: doubling, with jitter of half, bounded."""

    def pause(attempt: int) -> timedelta:
        longest = min(settings.backoff_max_s, settings.backoff_min_s * 2.0 ** (attempt - 1))
        return timedelta(seconds=jittered(longest))

    return pause
