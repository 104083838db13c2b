"""An embedded Kafka: one broker and controller in one JVM (KRaft), on 127.0.0.1, without Docker.

Theory. A broker is a folder: its settings, its ports and its data. Starting the same folder again is the same
broker with the same address, after an orderly stop as after a kill. Data folders are made whole (copied beside and
renamed), so a start that was interrupted can simply be repeated. The broker runs below a guard (supervise.py), and
"ready" means that a real client got the cluster's metadata from it.

The settings are those of a small test broker, measured: 0.9-1.3 s to boot and some 150 MB with a class archive.
`broker.session.timeout.ms` matters most: with Kafka's default a broker that was killed needs 11 s to come back.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from flux_devkit import jars as kafka_jars
from flux_devkit import supervise
from flux_devkit.errors import DevkitError, StartFailed
from flux_devkit.home import Home, Say, quiet, write_private
from flux_devkit.jars import KafkaJars
from flux_devkit.ports import free_port, is_free

SMALL_BROKER: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.quorum.voters": "1@127.0.0.1:{controller_port}",
    "listeners": "PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
    "advertised.listeners": "PLAINTEXT://127.0.0.1:{port}",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "log.dirs": "{data}",
    "auto.create.topics.enable": "false",
    # One broker holds every replica.
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Small: with the cleaner's default buffer of 128 MiB a heap of 128 MiB dies at start.
    "log.cleaner.dedupe.buffer.size": "2097152",
    "log.index.size.max.bytes": "65536",
    "log.segment.bytes": "16777216",
    "num.network.threads": "1",
    "num.io.threads": "2",
    "background.threads": "2",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    # Quick: to join a group, to end a hung transaction, to come back after a kill.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "broker.session.timeout.ms": "1000",
    "broker.heartbeat.interval.ms": "200",
    # Soon: deleted topics keep their files and memory maps this long.
    "log.segment.delete.delay.ms": "1000",
}

LOG4J = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %-5p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
logger.start.name = kafka.server.KafkaRaftServer
logger.start.level = info
logger.broker.name = kafka.server.BrokerServer
logger.broker.level = info
"""


@dataclass(frozen=True)
class KafkaOptions:
    """How a broker differs from the small default.

    `properties` are broker properties; in their values `{port}`, `{controller_port}` and `{data}` are filled in.
    `client` is what a client needs beside the address (SASL, TLS), for the readiness call. `format_arguments` go to
    the storage tool (`--add-scram`).
    """

    heap_mib: int = 128
    properties: Mapping[str, str] = field(default_factory=dict)
    client: Mapping[str, str] = field(default_factory=dict)
    format_arguments: Sequence[str] = ()
    start_timeout_seconds: float = 90.0


class EmbeddedKafka:
    """One broker in one folder. `start` it, talk to `bootstrap`, `stop` it; or use it as a context manager."""

    kind = "embedded"

    def __init__(
        self, home: Home, folder: Path, options: KafkaOptions | None = None,
        log: Path | None = None, hold: tuple[int, ...] = (), say: Say = quiet,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.log = log or folder / "kafka.log"
        self._home = home
        self._hold = hold
        self._say = say
        self._options = options or KafkaOptions()
        self._port = self._recorded_ports()[0]
        self._process: supervise.Supervised | None = None

    @property
    def has_address(self) -> bool:
        """Whether it was ever started."""
        return self._port != 0

    @property
    def bootstrap(self) -> str:
        """The address for clients, known from the first start on."""
        if not self._port:
            raise DevkitError("this broker was never started, so it has no address yet")
        return f"127.0.0.1:{self._port}"

    @property
    def process(self) -> supervise.Supervised:
        """The running broker. Raises DevkitError if it is not running."""
        if self._process is None:
            raise DevkitError(f"the broker of {self.folder} is not running")
        return self._process

    def start(self) -> EmbeddedKafka:
        """Start and wait until a client gets an answer. Raises MissingTool, DevkitError or StartFailed."""
        self.begin()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def begin(self) -> None:
        """Start and return at once; `wait_ready` is to follow."""
        installed = kafka_jars.install(self._home, self._say, self._hold)
        archive = installed.class_archive
        if not archive.exists():
            self._say("writing the class archive that makes later boots faster (once)")
            train(self._home, installed, self._hold)
        self._begin(installed, [f"-XX:SharedArchiveFile={archive}"] if archive.stat().st_size else [])

    def _begin(self, installed: KafkaJars, class_archive: list[str]) -> None:
        settings = self._prepare(installed)
        command = [
            str(installed.java), f"-Xmx{self._options.heap_mib}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-Xshare:auto", "-Xlog:disable", "-Xlog:all=error:stderr", *class_archive, "-XX:+ExitOnOutOfMemoryError",
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}", "-Djava.awt.headless=true",
            "-cp", installed.class_path, "kafka.Kafka", str(settings),
        ]  # fmt: skip
        self._process = supervise.start(supervise.Launch(command, self.log, grace_seconds=30, hold=self._hold))

    def wait_ready(self) -> None:
        """Wait until the broker answers a client. Raises StartFailed with the log's last lines."""
        deadline = time.monotonic() + self._options.start_timeout_seconds
        while time.monotonic() < deadline:
            if not self.process.alive:
                raise StartFailed(f"Kafka ended while it was starting. {self.log} ends:\n{supervise.tail(self.log)}")
            if answering_brokers(self.client_settings(), timeout_seconds=0.5):
                return
        limit = self._options.start_timeout_seconds
        raise StartFailed(f"Kafka did not answer within {limit:.0f} s. {self.log} ends:\n{supervise.tail(self.log)}")

    def client_settings(self) -> dict[str, Any]:
        """Settings for a confluent-kafka client of this broker, quick to connect again."""
        quick = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100, "log_level": 0}
        return {"bootstrap.servers": self.bootstrap, **quick, **self._options.client}

    def stop(self) -> None:
        """End the broker in order; nothing happens if it does not run."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def request_stop(self) -> None:
        """Ask for the orderly end and return at once; `stop` waits for it."""
        if self._process is not None:
            self._process.request_stop()

    def kill(self) -> None:
        """SIGKILL the broker, as a crash would."""
        self.process.kill()
        self._process = None

    def restart(self) -> None:
        """Start again at the same address, after `stop` or `kill` or while it runs."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: the broker keeps its connections and answers nothing."""
        self.process.pause()

    def resume(self) -> None:
        """SIGCONT."""
        self.process.resume()

    def __enter__(self) -> EmbeddedKafka:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _prepare(self, installed: KafkaJars) -> Path:
        """Data, settings and log settings of the folder; everything that is there already stays."""
        data = self.folder / "data"
        self.folder.mkdir(parents=True, exist_ok=True)
        if not data.exists():
            self._format(installed, data)
        (self.folder / "log4j2.properties").write_text(LOG4J)
        self._port, controller_port = self._ports()
        values = {"{port}": str(self._port), "{controller_port}": str(controller_port), "{data}": str(data)}
        settings = self.folder / "server.properties"
        lines = {**SMALL_BROKER, **self._options.properties}
        write_private(settings, "".join(f"{name}={_fill(value, values)}\n" for name, value in lines.items()))
        return settings

    def _format(self, installed: KafkaJars, data: Path) -> None:
        part = data.with_name(f"data.part-{os.getpid()}")
        shutil.rmtree(part, ignore_errors=True)
        if self._options.format_arguments:
            kafka_jars.format_logs(installed, part, self.log, self._options.format_arguments, self._hold)
        else:
            shutil.copytree(installed.formatted, part)
        part.rename(data)

    def _ports(self) -> tuple[int, int]:
        """The folder's ports; new ones if there are none yet, or if others took them while the broker was down."""
        port, controller_port = self._recorded_ports()
        if port and is_free(port) and is_free(controller_port):
            return port, controller_port
        port, controller_port = free_port(), free_port()
        (self.folder / "ports").write_text(f"{port} {controller_port}\n")
        return port, controller_port

    def _recorded_ports(self) -> tuple[int, int]:
        """The ports of the last start; zeros before the first."""
        file = self.folder / "ports"
        words = file.read_text().split() if file.exists() else []
        return (int(words[0]), int(words[1])) if len(words) == 2 else (0, 0)


def answering_brokers(client_settings: Mapping[str, Any], timeout_seconds: float) -> int:
    """How many brokers the cluster's own metadata names; 0 if nothing answers in time."""
    client = AdminClient({"reconnect.backoff.max.ms": 100, **client_settings}, logger=_SILENT)
    try:
        return len(client.list_topics(timeout=timeout_seconds).brokers)
    except KafkaException:
        return 0


def delete_topics(client_settings: Mapping[str, Any], prefix: str) -> None:
    """Delete every topic whose name starts with a prefix, as good as it goes: a broker may be down by now."""
    client = AdminClient(dict(client_settings), logger=_SILENT)
    with contextlib.suppress(KafkaException):
        topics = [name for name in client.list_topics(timeout=10).topics if name.startswith(prefix)]
        if prefix and topics:
            wait(client.delete_topics(topics, operation_timeout=10, request_timeout=10).values())


def train(home: Home, installed: KafkaJars, hold: tuple[int, ...] = ()) -> None:
    """Boot once to write the shared class archive, which halves the time of every later boot; best effort.

    A Java that cannot do it leaves an empty archive file behind, so that nobody tries again.
    """
    folder = installed.folder / f"training-{os.getpid()}"
    archive = folder / "classes.jsa"
    broker = EmbeddedKafka(home, folder, hold=hold)
    try:
        broker._begin(installed, [f"-XX:ArchiveClassesAtExit={archive}"])
        broker.wait_ready()
        broker.stop()
        if not archive.exists():
            archive.touch()
        archive.replace(installed.class_archive)
    finally:
        broker.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _fill(value: str, values: Mapping[str, str]) -> str:
    """Fill in the named places only: JAAS values contain other braces."""
    for place, text in values.items():
        value = value.replace(place, text)
    return value


class _Silent:
    """A logger for librdkafka that keeps quiet: while a broker boots, every refused connection is an error to it."""

    def log(self, *_: object) -> None:
        return


_SILENT = _Silent()
