"""Putting audit together: the facts lanes, the timer that signs leftovers, four relays by lease."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from flux_audit.adapters.log import PostgresLogs
from flux_audit.adapters.memory import TreeHeadMemory
from flux_audit.adapters.signer import TreeHeadSigner
from flux_audit.domain.signing import Cadence
from flux_audit.handlers.facts import FactsHandler
from flux_audit.handlers.heads import HeadPublisher
from flux_audit.handlers.leftovers import Leftovers
from flux_audit.handlers.unsigned import Unsigned
from flux_audit.settings import AuditSettings, LogSettings
from flux_common.contracts import catalogue
from flux_common.kafka.lanes import LaneLimits
from flux_common.runtime.lane_service import LaneParts, lane_parts
from flux_common.runtime.service import Jobs, Service

TOPICS = tuple(topic.name for topic in (catalogue.AUDIT, catalogue.TREE_HEADS, catalogue.RELAY_CURSORS))
# A head covers at most a batch more than its cadence says, and batches of hundreds are where commits cost little.
LIMITS = LaneLimits(records_max=1_000)


@asynccontextmanager
async def build(service: Service[AuditSettings]) -> AsyncIterator[Jobs]:
    """Open what audit needs and yield its loops. Raises FluxError where the signing key cannot be used."""
    settings = service.settings.audit
    signer = TreeHeadSigner.from_file(settings.key_file)
    memory = TreeHeadMemory(service.settings.kafka)
    try:
        async with lane_parts(service, TOPICS) as parts:
            unsigned = Unsigned(memory, service.clock, cadence_of(settings))
            publisher = HeadPublisher(unsigned, signer, settings.origin_prefix)
            add_loops(parts, publisher, unsigned)
            yield parts.jobs
    finally:
        await memory.close()


def add_loops(parts: LaneParts, publisher: HeadPublisher, unsigned: Unsigned) -> None:
    """Add the lanes, the timer and the relays to a service's jobs."""
    facts = FactsHandler(parts.lanes, PostgresLogs, publisher, unsigned)
    loop = parts.add_lanes(catalogue.AUDIT_FACTS, facts, limits=LIMITS)
    leftovers = Leftovers(
        parts.database,
        PostgresLogs,
        publisher,
        unsigned,
        loop.lanes,
        parts.committed,
        parts.service.clock,
        on_tick=lambda: parts.service.health.tick("leftovers"),
    )
    parts.jobs["leftovers"] = leftovers.run(parts.service.stopping)
    parts.add_relays()


def cadence_of(settings: LogSettings) -> Cadence:
    """Return how often heads are signed."""
    return Cadence(every_s=settings.sign_every_s, leaves=settings.sign_leaves)
