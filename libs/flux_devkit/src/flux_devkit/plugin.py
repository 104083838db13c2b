"""The pytest plugin of Flux: one real Kafka and one real PostgreSQL per test session, on demand.

Theory. A server is started when the first test asks for it and stopped at the session's end. Tests are kept apart
by names, not by servers: each gets a `topic_prefix` of its own for topics, groups and transactional ids, and each
`database` is a fresh copy of a template. Both are gone after the test: a small broker that keeps the topics of a
thousand tests stops answering. A test that kills, pauses or reconfigures a server asks for one of its own
(`fresh_kafka`, `fresh_postgres`), which is always an embedded one.

A suite that needs a migrated database overrides the session fixture `database_template`: create a database on
`postgres_server`, migrate it, return its name; nobody may stay connected to it.

Imports of the servers are inside the fixtures, so that suites that need none do not pay for them.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from flux_devkit.home import Home
    from flux_devkit.kafka import EmbeddedKafka
    from flux_devkit.postgres import EmbeddedPostgres
    from flux_devkit.secured import SecuredKafka
    from flux_devkit.sessions import TestSession


SESSION_HEAP_MIB = 384  # of the session's Kafka: many tests' topics, one after the other
# Roles belong to the whole server, so all that share the session's server use one password for them.
ROLE_PASSWORD = "for-tests-only"


@dataclass(frozen=True)
class PostgresServer:
    """The session's PostgreSQL: the superuser's DSN, and databases on it."""

    dsn: str

    def dsn_for(self, database: str) -> str:
        """The superuser's DSN for a database."""
        from flux_devkit.postgres import dsn_for

        return dsn_for(self.dsn, database)

    def create_database(self, name: str, template: str = "template1") -> Database:
        """A new database from a template that nobody is connected to."""
        from flux_devkit.postgres import create_database

        return Database(name, create_database(self.dsn, name, template))

    def drop_database(self, name: str) -> None:
        """Drop a database, together with whoever is connected."""
        from flux_devkit.postgres import drop_database

        drop_database(self.dsn, name)


@dataclass(frozen=True)
class Database:
    """A test's own database and the superuser's DSN for it."""

    name: str
    dsn: str

    def dsn_as(self, role: str, password: str) -> str:
        """The DSN for another login."""
        from urllib.parse import quote, urlsplit, urlunsplit

        parts = urlsplit(self.dsn)
        login = f"{quote(role, safe='')}:{quote(password, safe='')}"
        return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}"))


class FreshKafka(Protocol):
    """Starts a broker for this test alone."""

    def __call__(self, *, heap_mib: int = 128, **properties: str) -> EmbeddedKafka:
        """`properties` are broker properties with `_` for `.`: `log_segment_bytes="1048576"`."""


@pytest.fixture(scope="session")
def flux_home() -> Home:
    """Where the development kit keeps things."""
    from flux_devkit.home import locate

    return locate()


@pytest.fixture(scope="session")
def flux_session(flux_home: Home) -> Iterator[TestSession]:
    """This session's working folder."""
    from flux_devkit.sessions import open_session

    session = open_session(flux_home)
    yield session
    session.close()


@pytest.fixture(scope="session")
def kafka_bootstrap(flux_session: TestSession) -> Iterator[str]:
    """The session's Kafka: given, in a container, or embedded."""
    from flux_devkit.kafka import KafkaOptions
    from flux_devkit.servers import choose_kafka

    server = choose_kafka(flux_session.place, KafkaOptions(heap_mib=SESSION_HEAP_MIB))
    try:
        server.begin()
        server.wait_ready()
        yield server.bootstrap
    finally:
        server.stop()


@pytest.fixture(scope="session")
def secured_kafka(flux_home: Home, flux_session: TestSession) -> Iterator[SecuredKafka]:
    """The session's Kafka with logins and ACLs; always an embedded one. Its rules are kept apart by prefixes as well."""
    from flux_devkit.secured import SecuredKafka

    with SecuredKafka(flux_home, flux_session.folder / "data" / "secured", hold=flux_session.place.hold) as started:
        yield started


@pytest.fixture(scope="session")
def postgres_server(flux_session: TestSession) -> Iterator[PostgresServer]:
    """The session's PostgreSQL: given, in a container, or embedded (without fsync)."""
    from flux_devkit.postgres import PostgresOptions
    from flux_devkit.servers import choose_postgres

    server = choose_postgres(flux_session.place, PostgresOptions(fsync=False))
    try:
        server.begin()
        server.wait_ready()
        yield PostgresServer(server.dsn)
    finally:
        server.stop()


@pytest.fixture(scope="session")
def database_template() -> str:
    """The template of `database`; a suite overrides it with a migrated one."""
    return "template1"


@pytest.fixture
def database(postgres_server: PostgresServer, database_template: str) -> Iterator[Database]:
    """A fresh database for this test, dropped afterwards."""
    fresh = postgres_server.create_database(f"test_{secrets.token_hex(8)}", database_template)
    yield fresh
    postgres_server.drop_database(fresh.name)


@pytest.fixture
def topic_prefix(request: pytest.FixtureRequest) -> Iterator[str]:
    """A prefix for this test's topics, groups and transactional ids; ends with a dot. Its topics are deleted at the end."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40]
    prefix = f"t{secrets.token_hex(4)}-{name}."
    shared = request.getfixturevalue("kafka_bootstrap") if "kafka_bootstrap" in request.fixturenames else None
    yield prefix
    if shared is not None:
        from flux_devkit.kafka import delete_topics

        delete_topics({"bootstrap.servers": shared}, prefix)


@pytest.fixture
def fresh_kafka(flux_home: Home, flux_session: TestSession) -> Iterator[FreshKafka]:
    """A factory of embedded brokers that this test alone uses, and may kill."""
    import shutil

    from flux_devkit.kafka import EmbeddedKafka, KafkaOptions

    def boot(*, heap_mib: int = 128, **properties: str) -> EmbeddedKafka:
        folder = flux_session.folder / "data" / f"kafka-{secrets.token_hex(4)}"
        options = KafkaOptions(heap_mib, {name.replace("_", "."): value for name, value in properties.items()})
        broker = EmbeddedKafka(flux_home, folder, options, hold=flux_session.place.hold)
        booted.append(broker)
        return broker.start()

    booted: list[EmbeddedKafka] = []
    yield boot
    for broker in booted:
        broker.stop()
        shutil.rmtree(broker.folder, ignore_errors=True)


@pytest.fixture
def fresh_postgres(flux_session: TestSession) -> Iterator[Callable[..., EmbeddedPostgres]]:
    """A factory of embedded servers that this test alone uses, and may kill; keywords are server settings."""
    from flux_devkit.postgres import EmbeddedPostgres, PostgresOptions

    def boot(*, fsync: bool = False, **settings: str) -> EmbeddedPostgres:
        folder = flux_session.folder / "data" / f"postgres-{secrets.token_hex(4)}"
        server = EmbeddedPostgres(folder, PostgresOptions(fsync, settings), hold=flux_session.place.hold)
        booted.append(server)
        return server.start()

    booted: list[EmbeddedPostgres] = []
    yield boot
    for server in booted:
        server.remove()
