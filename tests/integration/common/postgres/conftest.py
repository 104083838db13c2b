"""Logins, a superuser's eye and a cut-off wire for the postgres room's suites."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as BrokerPartition
from confluent_kafka.admin import AdminClient, NewTopic

from flux_common.contracts.envelope import Outgoing
from flux_common.kafka.admin import Admin
from flux_common.kafka.publisher import TransactionalPublisher
from flux_common.kernel.clock import SystemClock
from flux_common.kernel.errors import Unavailable
from flux_common.kernel.ids import derived_id, shard_of
from flux_common.kernel.positions import TopicPartition
from flux_common.postgres.database import Database
from flux_common.postgres.outbox import insert_outbox
from flux_common.postgres.relay import PublishRefused, Relay
from flux_common.settings import KafkaSettings, PostgresSettings
from flux_devkit.plugin import Database as TestDatabase

from .matrix import ROWS, VARIED, Matrix

SettingsFor = Callable[[str], PostgresSettings]
OpenAs = Callable[..., Awaitable[Database]]


@pytest.fixture
async def admin(database: TestDatabase) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """The superuser, who sees all rows and may end any backend."""
    connection = await asyncpg.connect(database.dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def open_as(settings_for: SettingsFor) -> AsyncIterator[OpenAs]:
    """Open a role's `Database`; keywords are settings. All are closed in the end."""
    opened: list[Database] = []

    async def open_database(role: str, **changes: Any) -> Database:
        small = {"pool_min": 0, "pool_max": 4} | changes
        opened.append(await Database.open(settings_for(role).model_copy(update=small), "test"))
        return opened[-1]

    yield open_database
    for database in opened:
        await database.close(grace=1)


@dataclass
class Wire:
    """A TCP proxy before PostgreSQL that can cut a client off at its COMMIT, or swallow what it says at its release."""

    port: int = 0
    cut: str = "never"  # never, before or after it passed
    swallow: bool = False  # the next reset of a connection never arrives
    swallowed: asyncio.Event = field(default_factory=asyncio.Event)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def up(self, reader: asyncio.StreamReader, onward: asyncio.StreamWriter, back: asyncio.StreamWriter) -> None:
        """Pass what the client says; at a COMMIT do as `cut` says."""
        while chunk := await reader.read(65536):
            if self.swallow and b"RESET ALL" in chunk:
                self.swallow = False
                self.swallowed.set()
                continue
            commit = b"COMMIT" in chunk
            if not (commit and self.cut == "before"):
                onward.write(chunk)
                await onward.drain()
            if commit and self.cut != "never":
                back.transport.abort()
                onward.write_eof()
                return

    async def down(self, reader: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        """Pass what the server says."""
        with suppress(ConnectionError):
            while chunk := await reader.read(65536):
                back.write(chunk)
                await back.drain()


@pytest.fixture
async def wire(database: TestDatabase) -> AsyncIterator[Wire]:
    """A running `Wire` before this session's PostgreSQL."""
    made, parts = Wire(), urlsplit(database.dsn)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(parts.hostname, parts.port)
        made.writers += [writer, to_server]
        with suppress(ConnectionError):
            await asyncio.gather(made.up(reader, to_server, writer), made.down(from_server, writer))
        to_server.close()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    for writer in made.writers:
        writer.transport.abort()
    await asyncio.sleep(0)


@pytest.fixture
def through(wire: Wire) -> Callable[[PostgresSettings], PostgresSettings]:
    """Lead settings through the wire."""

    def led(settings: PostgresSettings) -> PostgresSettings:
        parts = urlsplit(settings.dsn)
        netloc = f"{parts.username}@127.0.0.1:{wire.port}"
        return settings.model_copy(update={"dsn": urlunsplit(parts._replace(netloc=netloc)), "pool_min": 0})

    return led


@pytest.fixture
def kafka(kafka_bootstrap: str, topic_prefix: str) -> KafkaSettings:
    """Settings of a client of the session's Kafka, behind this test's own prefix."""
    return KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix, session_timeout_ms=6000)


@pytest.fixture
def create_topic(kafka: KafkaSettings) -> Callable[..., Awaitable[str]]:
    """Create a topic by the name that Flux uses; keywords are topic settings with `_` for `.`."""

    async def create(name: str, partitions: int = 1, **config: str) -> str:
        client = AdminClient({"bootstrap.servers": kafka.bootstrap})
        settings = {key.replace("_", "."): value for key, value in config.items()}
        for future in client.create_topics([NewTopic(kafka.topic(name), partitions, 1, config=settings)]).values():
            await asyncio.to_thread(future.result, 10)
        tps = [TopicPartition(name, n) for n in range(partitions)]
        await _until(lambda: _leaders(kafka, tps))  # metadata lags behind creation
        return name

    return create


async def _leaders(kafka: KafkaSettings, tps: list[TopicPartition]) -> bool:
    with suppress(Unavailable):
        return len(await Admin(kafka).logs(tps)) == len(tps)
    return False


async def _until(holds: Callable[[], Awaitable[Any]], seconds: float = 20.0) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := await holds()):  # noqa: ASYNC110 - it is others that make it true
            await asyncio.sleep(0.02)
        return found


@pytest.fixture
def until() -> Callable[..., Awaitable[Any]]:
    """Wait until an asynchronous condition holds, and return what it returned."""
    return _until


@pytest.fixture
def event() -> Callable[..., Outgoing]:
    """Make a numbered event of an agency: `event(topic, 7)`."""

    def make(topic: str, number: int, *, key: str = "k", agency: str = "nasa", value: bytes | None = None) -> Outgoing:
        ident = str(derived_id(["test", topic, number]))
        return Outgoing(topic, key, ident, [("ce_id", ident.encode())], value or b"%d" % number, agency)

    return make


@pytest.fixture
def waiting_for_advisory(admin: Any) -> Callable[[], Any]:
    """Hold advisory lock 1 inside a block: what waits for it stands still there."""

    @asynccontextmanager
    async def held() -> AsyncIterator[Callable[[], Awaitable[bool]]]:
        async def somebody_waits() -> bool:
            return bool(
                await admin.fetchval(
                    "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 1 AND NOT granted"
                    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
                )
            )

        await admin.execute("SELECT pg_advisory_lock(1)")
        try:
            yield somebody_waits
        finally:
            await admin.execute("SELECT pg_advisory_unlock(1)")

    return held


CURSORS = "flux-internal.relay-cursors.v1"
SHARD = 0  # nasa's and loc's


class RelayBench:
    """One shard of checkpoint's outbox, its writers, its relays, and a reader of what came out."""

    shard = SHARD

    def __init__(self, database: Database, kafka: KafkaSettings, event: Callable[..., Outgoing]) -> None:
        self.database, self.kafka, self.event = database, kafka, event
        self.wake, self.stopping = asyncio.Event(), asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    def transport(self) -> TransactionalPublisher:
        """Return the real way into Kafka."""
        return TransactionalPublisher(self.kafka, "checkpoint", SHARD, SystemClock(), refused=PublishRefused)

    def publishing(self, publish: Callable[..., Awaitable[None]]) -> Callable[[], Any]:
        """Make transports that publish by `publish(real, events, cursor)`, and are the real one otherwise."""

        def make() -> Any:
            real = self.transport()
            return SimpleNamespace(open=real.open, close=real.close, publish=partial(publish, real))

        return make

    def start(self, transport: Callable[[], Any] | None = None, holder: str = "one", **more: Any) -> asyncio.Task[None]:
        """Run a relay; `transport` may wrap the real one."""
        database = more.pop("database", self.database)
        relay = Relay(database, SHARD, transport or self.transport, holder, self.wake, SystemClock())
        self.tasks.append(asyncio.create_task(relay.run(self.stopping)))
        return self.tasks[-1]

    async def stop(self) -> None:
        """End all relays in order; raises what one of them raised."""
        self.stopping.set()
        await asyncio.wait_for(asyncio.gather(*self.tasks), 30)
        self.tasks.clear()
        self.stopping.clear()

    async def write(self, *events: Outgoing) -> None:
        """Decide events in one transaction, and wake the relay."""
        async with self.database.transaction() as connection:
            await insert_outbox(connection, events)
        self.wake.set()

    async def empty(self) -> bool:
        """Tell whether everything has left."""
        return not await self.one("SELECT EXISTS (SELECT FROM outbox)")

    async def one(self, query: str, *args: Any) -> Any:
        """Return one value."""
        async with self.database.transaction() as connection:
            return await connection.fetchval(query, *args)

    async def lease(self) -> tuple[int, int]:
        """Return the last number given and the last known published."""
        async with self.database.transaction() as connection:
            row = await connection.fetchrow(
                "SELECT relay_counter, last_cursor FROM relay_leases WHERE shard = $1", SHARD
            )
        assert row is not None
        return row["relay_counter"], row["last_cursor"]

    async def published(self, topic: str, partitions: int = 1) -> list[int]:
        """Return the numbers that a read_committed reader finds on a topic, in order of each Kafka partition."""
        return [int(record.value) for record in await self.records(topic, partitions)]

    async def records(self, topic: str, partitions: int = 1) -> list[Any]:
        """Return every record of a topic up to its present end, as a read_committed reader sees them."""
        tps = [BrokerPartition(self.kafka.topic(topic), n) for n in range(partitions)]
        found: list[Any] = []
        async with AIOKafkaConsumer(
            bootstrap_servers=self.kafka.bootstrap, isolation_level="read_committed", enable_auto_commit=False
        ) as consumer:
            consumer.assign(tps)
            await consumer.seek_to_beginning(*tps)
            ends = await consumer.end_offsets(tps)
            while any([await consumer.position(tp) < ends[tp] for tp in tps]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += records
        return found


@pytest.fixture
async def bench(
    checkpoint_database: Database, kafka: KafkaSettings, create_topic: Any, event: Any
) -> AsyncIterator[RelayBench]:
    """A bench with its cursor topic; relays still running are cut off in the end."""
    assert {shard_of("nasa"), shard_of("loc")} == {SHARD}
    await create_topic(CURSORS, 5, cleanup_policy="compact")  # shard 0 of checkpoint has the fifth
    made = RelayBench(checkpoint_database, kafka, event)
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


@pytest.fixture
async def tables(admin: Any) -> dict[str, dict[str, Any] | None]:
    """Every table of Flux, and a row of esa's (or of nobody's) to insert: no column that the database makes."""
    await admin.execute(ROWS)
    names = await admin.fetch(
        "SELECT c.oid::regclass::text AS name, (SELECT array_agg(attname::text) FROM pg_attribute a"
        "  WHERE a.attrelid = c.oid AND attidentity = 'a') AS made"
        "  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname LIKE 'flux%' AND n.nspname <> 'flux_meta' AND c.relkind = 'r' ORDER BY 1"
    )
    found: dict[str, dict[str, Any] | None] = {}
    for name, made in names:
        row = json.loads(await admin.fetchval(f"SELECT to_jsonb(t)::text FROM {name} t LIMIT 1"))
        row |= {"agency_id": "esa"} if "agency_id" in row else {}
        row |= VARIED.get(name.split(".")[1], {})
        found[name] = {column: value for column, value in row.items() if column not in (made or [])}
    return found


@pytest.fixture
def matrix_of(database: TestDatabase, tables: Any) -> Any:
    """Open the matrix of a role."""

    async def opened(role: str) -> Matrix:
        return Matrix(await asyncpg.connect(database.dsn_as(role, "for-tests-only")), role, tables)

    return opened
