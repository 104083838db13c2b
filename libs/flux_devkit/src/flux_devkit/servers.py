"""Which Kafka and which PostgreSQL: the order of choice, and the one shape that all of them have.

The order: servers that are given (`FLUX_KAFKA_BOOTSTRAP`, `FLUX_POSTGRES_DSN`), each for itself; then containers
where a Docker engine answers; then the embedded ones. `FLUX_STACK=embedded` or `FLUX_STACK=containers` settles the
choice among the last two. Nothing given is ever started, stopped or changed by us. An address in the environment
that is a place's own embedded server's (a shell that sourced `dev.env` calls `up` again) does not count as given.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from flux_devkit.errors import DevkitError, StartFailed
from flux_devkit.home import Home, Say, quiet
from flux_devkit.kafka import EmbeddedKafka, KafkaOptions, answering_brokers
from flux_devkit.postgres import EmbeddedPostgres, PostgresOptions, answers

KINDS = ("embedded", "containers")


@dataclass(frozen=True)
class Servers:
    """Where the servers are: Kafka's bootstrap address and the PostgreSQL superuser's DSN."""

    kafka_bootstrap: str
    postgres_dsn: str


class Server(Protocol):
    """A server that can be begun, waited for and ended. Every call may be repeated."""

    kind: str

    def begin(self) -> None:
        """Start and return."""

    def wait_ready(self) -> None:
        """Wait until a real client gets an answer; raises StartFailed."""

    def request_stop(self) -> None:
        """Ask for the end and return."""

    def stop(self) -> None:
        """End and return when it has ended."""


class KafkaServer(Server, Protocol):
    """A Kafka."""

    @property
    def bootstrap(self) -> str:
        """The address for clients."""


class PostgresServer(Server, Protocol):
    """A PostgreSQL."""

    @property
    def dsn(self) -> str:
        """The superuser's DSN."""


@dataclass(frozen=True)
class Place:
    """Where a chosen server keeps its data and its log, and the descriptors that live as long as it does."""

    home: Home
    data: Path
    logs: Path
    hold: tuple[int, ...] = ()
    say: Say = quiet


def choose_kafka(
    place: Place, options: KafkaOptions | None = None, environ: Mapping[str, str] | None = None
) -> KafkaServer:
    """The Kafka to use, not yet begun. Raises DevkitError for an unknown `FLUX_STACK`."""
    environ = os.environ if environ is None else environ
    embedded = EmbeddedKafka(place.home, place.data / "kafka", options, place.logs / "kafka.log", place.hold, place.say)
    given = environ.get("FLUX_KAFKA_BOOTSTRAP")
    if given and not (embedded.has_address and given == embedded.bootstrap):
        return GivenKafka(given)
    if choose_kind(environ) == "containers":
        from flux_devkit.containers import ContainerKafka

        return ContainerKafka()
    return embedded


def choose_postgres(
    place: Place, options: PostgresOptions | None = None, environ: Mapping[str, str] | None = None
) -> PostgresServer:
    """The PostgreSQL to use, not yet begun. Raises DevkitError for an unknown `FLUX_STACK`."""
    environ = os.environ if environ is None else environ
    embedded = EmbeddedPostgres(place.data / "postgres", options, place.logs / "postgres.log", place.hold)
    given = environ.get("FLUX_POSTGRES_DSN")
    if given and not (embedded.has_address and given == embedded.dsn):
        return GivenPostgres(given)
    if choose_kind(environ) == "containers":
        from flux_devkit.containers import ContainerPostgres

        return ContainerPostgres()
    return embedded


def choose_kind(environ: Mapping[str, str]) -> str:
    """`embedded` or `containers`."""
    wanted = environ.get("FLUX_STACK")
    if wanted in KINDS:
        return wanted
    if wanted not in (None, "", "auto"):
        raise DevkitError(f"FLUX_STACK is {wanted!r}; it may be {' or '.join(KINDS)}")
    return "containers" if docker_answers(environ) else "embedded"


def docker_answers(environ: Mapping[str, str]) -> bool:
    """Whether a Docker engine answers; quick where there is none."""
    if not something_listens(environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"):
        return False
    from flux_devkit.containers import engine_answers

    return engine_answers()


def something_listens(address: str) -> bool:
    """Whether a `unix://` or `tcp://` address accepts a connection; any other kind is left to Docker's own client."""
    parts = urlsplit(address)
    try:
        if parts.scheme in ("tcp", "http", "https"):
            socket.create_connection((parts.hostname or "", parts.port or 2375), timeout=3).close()
        elif parts.scheme == "unix":
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(3)
                probe.connect(parts.path)
    except OSError:
        return False
    return True


class GivenKafka:
    """A Kafka that somebody else runs."""

    kind = "given"

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    def begin(self) -> None:
        """Nothing to start."""

    def wait_ready(self) -> None:
        """Raises StartFailed if it does not answer within ten seconds."""
        if not answering_brokers({"bootstrap.servers": self.bootstrap, "log_level": 0}, timeout_seconds=10):
            raise StartFailed(f"FLUX_KAFKA_BOOTSTRAP={self.bootstrap} does not answer; start it or unset the variable")

    def request_stop(self) -> None:
        """Not ours to stop."""

    def stop(self) -> None:
        """Not ours to stop."""


class GivenPostgres:
    """A PostgreSQL that somebody else runs."""

    kind = "given"

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def begin(self) -> None:
        """Nothing to start."""

    def wait_ready(self) -> None:
        """Raises StartFailed if a login fails; the message does not hold the password."""
        if not answers(self.dsn):
            raise StartFailed("a login with FLUX_POSTGRES_DSN fails; start that server or unset the variable")

    def request_stop(self) -> None:
        """Not ours to stop."""

    def stop(self) -> None:
        """Not ours to stop."""
