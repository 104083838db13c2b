"""Gathering one moment of an installation: tables in one snapshot, topics whole, and proof that they belong together.

What must hold: the topics did not grow while they were read and the snapshot was taken inside that time, so tables and
topics are of one moment, even of an installation that is at work. Where they grew, everything is gathered again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import asyncpg

from flux_common.contracts.catalogue import TOPICS, TREE_HEADS, topic_names
from flux_common.kafka.admin import Admin
from flux_common.kernel.positions import TopicPartition
from flux_common.postgres.queries import Queries
from flux_common.settings import KafkaSettings
from flux_devkit.errors import DevkitError
from flux_devkit.oracle.rows import ROWS, Tables
from flux_devkit.oracle.topics import read_committed
from flux_devkit.oracle.world import SERVICES, Log, World

TRIES: Final = 10
PAUSE_SECONDS: Final = 0.5

_SQL = Queries.load("flux_devkit.oracle", "tables.sql")


class Agency(Protocol):
    """An agency of the installation."""

    @property
    def agency_id(self) -> str:
        """Return its id."""
        ...


class Target(Protocol):
    """What is examined: `flux_devkit.installation.Installation` is one."""

    @property
    def admin_dsn(self) -> str:
        """Return a superuser's DSN, whom row-level security does not bind."""
        ...

    @property
    def agencies(self) -> Sequence[Agency]:
        """Return the agencies whose topics are read."""
        ...

    def kafka(self) -> KafkaSettings:
        """Return how to reach Kafka, with the topic prefix."""
        ...


async def gather(
    target: Target, *, services: frozenset[str] = SERVICES, audit_keys: Sequence[Any] = (), tries: int = TRIES
) -> World:
    """Return the installation as it is at one moment.

    Raises:
        DevkitError: it would not stand still for the time of `tries` readings, or Kafka refused.
        Unavailable: Kafka does not answer.
    """
    settings, agencies = target.kafka(), tuple(sorted(agency.agency_id for agency in target.agencies))
    logs = await read_logs(settings, agencies)
    for _ in range(tries):
        tables = await read_tables(target.admin_dsn)
        records = await asyncio.to_thread(read_committed, settings, logs)
        later = await read_logs(settings, agencies)
        if _decided(later) == _decided(logs):
            return World(tables, records, logs, agencies, services, tuple(audit_keys))
        logs = later
        await asyncio.sleep(PAUSE_SECONDS)
    raise DevkitError("the installation is too busy for the oracle: topics grew while they were read")


def still(one: World, other: World) -> bool:
    """Tell whether nothing was decided between two readings."""
    return _decided(one.logs) == _decided(other.logs)


def _decided(logs: Mapping[TopicPartition, Log]) -> dict[TopicPartition, Log]:
    """Leave out the heartbeat: audit tells its watermarks every few seconds, and nothing else hangs on it."""
    return {tp: log for tp, log in logs.items() if tp.topic != TREE_HEADS.name}


async def read_tables(dsn: str) -> Tables:
    """Return all rows that the oracle looks at, of one snapshot."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return await read_rows(connection)
    finally:
        await connection.close()


async def read_rows(connection: asyncpg.Connection[asyncpg.Record]) -> Tables:
    """Return all rows that the oracle looks at, as the connection's transaction sees them."""
    rows = {name: await connection.fetch(_SQL[name]) for name in ROWS}
    return Tables(**{name: tuple(ROWS[name](**dict(row)) for row in found) for name, found in rows.items()})


async def read_logs(settings: KafkaSettings, agencies: Sequence[str]) -> dict[TopicPartition, Log]:
    """Return the bounds of every Kafka partition of the catalogue's topics that exist."""
    names = [name for spec in TOPICS for name in topic_names(spec, list(agencies))]
    admin = Admin(settings)
    topics = await admin.describe(names)
    tps = [TopicPartition(name, number) for name, facts in topics.items() for number in range(facts.kafka_partitions)]
    facts = await admin.logs(tps)
    return {tp: Log(one.topic_id, one.log_start, one.log_end) for tp, one in facts.items()}
