"""Kafka and PostgreSQL together, as one thing that is up or not.

Theory. Both are begun before either is waited for, so that they boot at the same time. A stack that does not come
up whole is taken down again before the error is shown. What it started hangs on this process (supervise.py); what
was given stays as it was. Used in-process by tests and the demo; `background.py` keeps one running after `make up`.
"""

from __future__ import annotations

from flux_devkit.home import Home, Say, quiet
from flux_devkit.kafka import KafkaOptions
from flux_devkit.postgres import PostgresOptions
from flux_devkit.servers import Place, Servers, choose_kafka, choose_postgres

DEVELOPMENT_HEAP_MIB = 512


class Stack:
    """A Kafka and a PostgreSQL. Use it as a context manager, or call `start` and `stop`."""

    def __init__(
        self, place: Place, kafka: KafkaOptions | None = None, postgres: PostgresOptions | None = None
    ) -> None:
        self.kafka = choose_kafka(place, kafka or KafkaOptions(heap_mib=DEVELOPMENT_HEAP_MIB))
        self.postgres = choose_postgres(place, postgres)
        self._say = place.say

    def start(self) -> Servers:
        """Start both and wait until both answer; nothing is left running if one does not. Raises DevkitError."""
        try:
            for name, server in (("PostgreSQL", self.postgres), ("Kafka", self.kafka)):
                self._say(f"starting {name} ({server.kind})")
                server.begin()
            for name, server in (("PostgreSQL", self.postgres), ("Kafka", self.kafka)):
                server.wait_ready()
                self._say(f"{name} answers")
        except BaseException:
            self.stop()
            raise
        return Servers(self.kafka.bootstrap, self.postgres.dsn)

    def stop(self) -> None:
        """Stop what was started, both at the same time."""
        for server in (self.kafka, self.postgres):
            server.request_stop()
        for server in (self.kafka, self.postgres):
            server.stop()

    def __enter__(self) -> Servers:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def development_place(home: Home, hold: tuple[int, ...] = (), say: Say = quiet) -> Place:
    """Where `make up` keeps the servers' data and logs."""
    return Place(home, home.data, home.logs, hold, say)
