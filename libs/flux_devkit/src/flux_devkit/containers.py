"""Kafka and PostgreSQL in containers (testcontainers), for machines where a Docker engine answers.

Theory. testcontainers ends the containers when this process does, also when it is killed (its reaper watches us).
Kafka must know the address that clients will use before it starts, so its port is chosen here and bound, not left
to the engine. The settings are those of the embedded broker. Imported only where an engine answers.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from typing import Any

from flux_devkit.errors import StartFailed
from flux_devkit.kafka import answering_brokers
from flux_devkit.ports import free_port
from flux_devkit.postgres import answers

KAFKA_IMAGE = "apache/kafka:4.3.1"
POSTGRES_IMAGE = "postgres:18"
START_TIMEOUT_SECONDS = 120.0


def engine_answers() -> bool:
    """Whether a Docker engine answers within three seconds."""
    import docker  # type: ignore[import-untyped]
    from docker.errors import DockerException  # type: ignore[import-untyped]

    try:
        with contextlib.closing(docker.from_env(timeout=3)) as client:
            return bool(client.ping())
    except (DockerException, OSError):
        return False


class ContainerKafka:
    """One Kafka broker in a container."""

    kind = "containers"

    def __init__(self) -> None:
        self._container: Any = None
        self._port = free_port()
        self._host = "127.0.0.1"

    @property
    def bootstrap(self) -> str:
        """The address for clients."""
        return f"{self._host}:{self._port}"

    def begin(self) -> None:
        """Pull the image if need be and start the container."""
        from testcontainers.core.container import DockerContainer

        container = DockerContainer(KAFKA_IMAGE)
        self._host = container.get_docker_client().host()
        settings = {
            "node.id": "1",
            "process.roles": "broker,controller",
            "controller.quorum.voters": "1@localhost:9093",
            "controller.listener.names": "CONTROLLER",
            "listeners": "PLAINTEXT://:9092,CONTROLLER://:9093",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        }
        for name, value in settings.items():
            container.with_env("KAFKA_" + name.upper().replace(".", "_"), value)
        container.with_bind_ports(9092, self._port)
        self._container = container
        container.start()

    def wait_ready(self) -> None:
        """Raises StartFailed if no client gets an answer in time."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if answering_brokers({"bootstrap.servers": self.bootstrap, "log_level": 0}, timeout_seconds=1):
                return
        raise StartFailed(f"Kafka in a container ({KAFKA_IMAGE}) did not answer; see: docker logs")

    def request_stop(self) -> None:
        """A container is ended by `stop`."""

    def stop(self) -> None:
        """Remove the container."""
        if self._container is not None:
            self._container.stop()
            self._container = None


class ContainerPostgres:
    """One PostgreSQL in a container."""

    kind = "containers"

    def __init__(self) -> None:
        self._container: Any = None
        self._address = ""
        self._password = secrets.token_urlsafe(18)

    @property
    def dsn(self) -> str:
        """The superuser's DSN."""
        return f"postgresql://postgres:{self._password}@{self._address}/postgres"

    def begin(self) -> None:
        """Pull the image if need be and start the container."""
        from testcontainers.core.container import DockerContainer

        container = DockerContainer(POSTGRES_IMAGE)
        container.with_env("POSTGRES_PASSWORD", self._password).with_exposed_ports(5432)
        container.with_command("postgres -c max_connections=200 -c timezone=UTC")
        self._container = container
        container.start()
        self._address = f"{container.get_container_host_ip()}:{container.get_exposed_port(5432)}"

    def wait_ready(self) -> None:
        """Raises StartFailed if no login succeeds in time."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if answers(self.dsn):
                return
            time.sleep(0.2)
        raise StartFailed(f"PostgreSQL in a container ({POSTGRES_IMAGE}) did not answer; see: docker logs")

    def request_stop(self) -> None:
        """A container is ended by `stop`."""

    def stop(self) -> None:
        """Remove the container."""
        if self._container is not None:
            self._container.stop()
            self._container = None
