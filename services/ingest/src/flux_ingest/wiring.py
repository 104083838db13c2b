"""Putting ingest together: the lanes of every agency's requests topic, relays by lease, and a registry kept current."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from flux_common.auth import RegistrySource
from flux_common.auth.keyset import key_files
from flux_common.contracts import catalogue, intake
from flux_common.kafka import LaneLimits
from flux_common.kernel.errors import Unavailable
from flux_common.observability import metrics
from flux_common.observability.logging import get_logger
from flux_common.postgres.lanes import Advance
from flux_common.runtime.key_refresh import KeyRefresher
from flux_common.runtime.lane_service import lane_parts
from flux_common.runtime.registry_refresh import look_again
from flux_common.runtime.service import Jobs, Service
from flux_ingest.adapters.decisions import PostgresDecisions
from flux_ingest.adapters.watermarks import HeardWatermarks
from flux_ingest.domain.seals import Seals
from flux_ingest.handlers.expiry import UsesExpiry
from flux_ingest.handlers.requests import TOPICS, RequestsHandler, agency_of
from flux_ingest.handlers.sealing import SealGate
from flux_ingest.ports import DecisionStore
from flux_ingest.settings import IngestSettings

log = get_logger(__name__)

WRITTEN: Final = tuple(topic.name for topic in (catalogue.RUNS, catalogue.AUDIT, catalogue.RELAY_CURSORS))
REFRESH_PAUSE_S: Final = 1.0  # however many tokens name unknown keys, the files are looked at once a second


@asynccontextmanager
async def build(service: Service[IngestSettings]) -> AsyncIterator[Jobs]:
    """Open what ingest needs and yield its loops."""
    settings = service.settings
    intake.prepare()
    source = RegistrySource(settings.agencies.file, service.clock.now(), settings.jwks.stale_after_s)
    refresher = KeyRefresher(source, settings.jwks.fetcher(), service.clock, settings.jwks.pace())
    await refresher.first()
    unknown_key = asyncio.Event()

    def hurry(iss: str) -> None:
        unknown_key.set()
        refresher.hurry(iss)

    seals = Seals(catalogue.AUDIT.kafka_partitions)
    async with lane_parts(service, WRITTEN) as parts:
        handler = RequestsHandler(
            parts.lanes,
            open_store,
            lambda: source.trust,
            service.clock,
            SealGate(seals, timedelta(seconds=settings.intake.seal_lag_max_s)),
            hurry,
            settings.intake.limits(),
        )
        limits = LaneLimits(
            records_max=settings.intake.batch_records_max,
            records_max_of=handler.records_max,
            concurrency=settings.intake.lanes_at_once,
            topics_take_turns=True,  # a topic is an agency's, and an agency's lanes wait for one lock
        )
        parts.add_lanes(
            catalogue.INGEST_REQUESTS,
            handler,
            topics=TOPICS,
            accepts=registered(source),
            limits=limits,
            watermarks=False,
        )
        parts.add_relays()
        parts.jobs["seals"] = HeardWatermarks(seals).follow(settings.kafka, service.stopping)
        parts.jobs["registry"] = keep_current(service, source, unknown_key)
        parts.jobs["keys"] = refresher.run(service.pause)
        expiry = UsesExpiry(parts.database, PostgresDecisions, service.clock)
        parts.jobs["expiry"] = expire(service, source, expiry)
        yield parts.jobs


def open_store(advance: Advance, agency_id: str) -> DecisionStore:
    """Return the store of one agency's decisions inside an Advance."""
    return PostgresDecisions(advance.connection, agency_id)


def registered(source: RegistrySource) -> Callable[[str], bool]:
    """Return the predicate that a topic (by its catalogue name) belongs to an agency that is registered now."""
    return lambda topic: source.trust.registry.agency(agency_of(topic) or "") is not None


async def keep_current(service: Service[IngestSettings], source: RegistrySource, hurry: asyncio.Event) -> None:
    """Look at the registry and its keys now and then, and soon after a token named a key that is not known."""
    period_s, waited_s = service.settings.intake.registry_refresh_ms / 1000, 0.0
    while await service.pause(REFRESH_PAUSE_S):
        waited_s += REFRESH_PAUSE_S
        if hurry.is_set() or waited_s >= period_s:
            hurry.clear()
            waited_s = 0.0
            await _refresh(service, source)


async def _refresh(service: Service[IngestSettings], source: RegistrySource) -> None:
    await look_again(source, service.clock.now())
    for iss in key_files(source.trust.registry):
        age = service.clock.now() - source.trust.keys.of(iss).confirmed_at
        metrics.keys_age_seconds.labels(iss).set(age.total_seconds())


async def expire(service: Service[IngestSettings], source: RegistrySource, expiry: UsesExpiry) -> None:
    """Forget what is due, now and then; an outage only delays it."""
    while await service.pause(service.settings.intake.uses_expiry_ms / 1000):
        try:
            await expiry.run(source.trust.registry.agencies)
        except Unavailable as problem:
            log.warning("single uses not forgotten yet", code=problem.code)
