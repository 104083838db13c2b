"""What ingest, checkpoint and audit have in common: a database, lanes, and an outbox that is relayed.

A service of this kind opens its database (waiting for PostgreSQL and for the schema), waits for its topics, and runs lane
loops and one relay for each shard. `committed` is set after a commit of this process, so that the relays of the shards it
wrote to need not wait for their poll; the others sleep on, since each look costs a transaction.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from os import getpid
from typing import Any

from flux_common.contracts.catalogue import GroupSpec
from flux_common.kafka.lanes import LaneHandler, LaneLimits, LaneLoop
from flux_common.kafka.publisher import TransactionalPublisher
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import FluxError, Unavailable
from flux_common.kernel.ids import SHARDS, shard_of
from flux_common.kernel.signals import Signal
from flux_common.postgres.database import Database
from flux_common.postgres.lanes import PostgresLanes
from flux_common.postgres.migrations import require_schema
from flux_common.postgres.relay import PublishRefused, Relay
from flux_common.postgres.room import OutboxRoom
from flux_common.runtime.retry import jitter
from flux_common.runtime.service import Service
from flux_common.runtime.waiting import ask, kafka_answers, kafka_is_there, topics_exist
from flux_common.settings import KafkaSettings, PostgresSettings, ServiceSettings

WATCH_SECONDS = 2.0


class LaneServiceSettings(ServiceSettings):
    """The settings of a service with lanes."""

    kafka: KafkaSettings
    postgres: PostgresSettings


@dataclass(slots=True)
class LaneParts:
    """The opened parts of a service with lanes, and the loops it shall run."""

    service: Service[Any]
    database: Database
    lanes: PostgresLanes
    holder: str
    committed: Signal
    jobs: dict[str, Coroutine[Any, Any, None]] = field(default_factory=dict)
    loops: list[LaneLoop] = field(default_factory=list)

    def add_lanes(
        self,
        group: GroupSpec,
        handler: LaneHandler,
        *,
        topics: str | None = None,
        accepts: Callable[[str], bool] | None = None,
        limits: LaneLimits | None = None,
        watermarks: bool = True,
    ) -> LaneLoop:
        """Read the group's topic; where each agency has one, `topics` is a pattern of them.

        `watermarks` says whether silence on the lane is measured (who needs none saves a commit every ten seconds).
        """
        service, name = self.service, f"lanes-{group.purpose}"
        loop = LaneLoop(
            service.settings.kafka,
            group=group.name,
            topics=topics or (group.topic.name,),
            store=self.lanes,
            handler=handler,
            clock=service.clock,
            jitter=jitter,
            accepts=accepts,
            limits=limits,
            transactional=group.topic.transactional,  # then gaps between records are expected
            watermarks=watermarks,
            on_tick=lambda: service.health.tick(name),
        )
        self.loops.append(loop)
        self.jobs[name] = loop.run(service.stopping)
        return loop

    def add_relays(self) -> None:
        """Relay the outbox: one relay for each shard, whenever its lease is ours."""
        settings, name = self.service.settings.kafka, self.service.name
        for shard in range(SHARDS):

            def transport(shard: int = shard) -> TransactionalPublisher:
                return TransactionalPublisher(settings, name, shard, self.service.clock, refused=PublishRefused)

            relay = Relay(
                self.database, shard, transport, self.holder, self.committed.subscribe(shard), self.service.clock
            )
            self.jobs[f"relay-{shard}"] = relay.run(self.service.stopping)


def holder_name(service: str) -> str:
    """Return a name for this process in leases."""
    return f"{service}@{socket.gethostname()}:{getpid()}"


@asynccontextmanager
async def lane_parts(service: Service[Any], topics: Iterable[str]) -> AsyncIterator[LaneParts]:
    """Open what a service with lanes needs, waiting for each thing, and close it in the end."""
    settings: LaneServiceSettings = service.settings
    database = await service.wait_for(
        "postgres", lambda: Database.open(settings.postgres, f"flux-{service.name}", starting=True)
    )
    try:
        await service.wait_for("schema", lambda: _schema(database))
        await service.wait_for("kafka", kafka_answers(settings.kafka))
        await service.wait_for("topics", topics_exist(settings.kafka, topics))
        committed, room = Signal(), OutboxRoom(database)
        lanes = PostgresLanes(
            database, service.name, lambda events: committed.set({shard_of(e.agency_id) for e in events}), room.check
        )
        parts = LaneParts(service, database, lanes, holder_name(service.name), committed)
        parts.jobs["room"] = room.keep(service.stopping)
        parts.jobs["watch"] = watch(parts)
        yield parts
    finally:
        await database.close()


async def _schema(database: Database) -> None:
    try:
        await require_schema(database)
    except FluxError as problem:
        if problem.code != Code.SCHEMA_OUTDATED:
            raise
        raise Unavailable(problem.code, problem.message) from problem


async def watch(parts: LaneParts) -> None:
    """Keep `/readyz` true: PostgreSQL and Kafka answer, every group is joined, no assigned lane stays untaken."""
    health, service = parts.service.health, parts.service
    for name in ("postgres", "kafka", "lanes"):
        health.require(name)
    going = True
    while going:
        await asyncio.gather(
            ask(health, "postgres", parts.database.ping()),
            ask(health, "kafka", kafka_is_there(service.settings.kafka)),
        )
        untaken = [str(tp) for loop in parts.loops for tp, _why in loop.untaken()]
        if untaken or not all(loop.joined for loop in parts.loops):
            health.fail("lanes", f"untaken: {', '.join(untaken[:5])}" if untaken else "group not joined")
        else:
            health.ok("lanes")
        going = await service.pause(WATCH_SECONDS)
