"""A small installation that lived through all that the oracle knows, and came to rest; faults are sown into copies of it.

Four real services carry three agencies' runs to COMPLETED, FAILED (twice, after a retry) and CANCELLED, and meet refusals,
repetitions, dead letters, duplicates and reports of the past on the way. Then they are stopped.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import asyncpg
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as BrokerPartition

from flux_client.development import EXAMPLE_AGENCIES
from flux_common.contracts import catalogue
from flux_devkit.asking import a_producer, a_request, ask, ends, texts
from flux_devkit.flux import Flux, wait_until
from flux_devkit.installation import Installation
from flux_devkit.oracle import Report, Violation, World, examine, gather, judge
from flux_devkit.oracle.examination import Options, audit_keys_of
from flux_devkit.plugin import ROLE_PASSWORD, PostgresServer
from flux_devkit.servers import Servers
from flux_devkit.sessions import TestSession

QUICK = {"FLUX_DISPATCH_BACKOFF_MIN_S": "0.2", "FLUX_DISPATCH_STALL_AFTER_S": "20"}
NOTHING_UNSIGNED = """
    SELECT NOT EXISTS (SELECT FROM flux_audit.outbox)
       AND NOT EXISTS (SELECT FROM flux_audit.tree_heads WHERE signed_size < size)
"""
FLOODED = {"library-of-congress": 2}  # refusals of a minute
AT_REST: dict[str, Any] = {"quiescent": True, "settled": True}


@dataclass(frozen=True)
class Rest:
    """An installation at rest, and what the oracle gathered of it."""

    installation: Installation
    world: World

    found: frozenset[Violation]

    def judge(self, world: World) -> Report:
        """Return the oracle's verdict on a world."""
        return judge(world, Options(**AT_REST))

    def new(self, world: World) -> dict[str, list[str]]:
        """Return what the oracle finds in a world with a fault, beyond what it finds in this one, by invariant."""
        fresh = sorted(set(self.judge(world).violations) - self.found)
        return {
            violation.invariant: [str(v) for v in fresh if v.invariant == violation.invariant] for violation in fresh
        }

    async def gathered(self) -> World:
        """Gather again: the topics as they are now."""
        return await gather(self.installation, audit_keys=audit_keys_of(self.installation))


@pytest.fixture(scope="session")
def rest(kafka_bootstrap: str, postgres_server: PostgresServer, flux_session: TestSession) -> Iterator[Rest]:
    """The installation, made once: nobody is connected to its database afterwards."""
    folder = flux_session.folder / "oracle"
    installation = Installation(
        Servers(kafka_bootstrap, postgres_server.dsn),
        role_password=ROLE_PASSWORD,
        keys=folder / "keys",
        folder=folder / "data",
        database=f"oracle_{secrets.token_hex(6)}",
        topic_prefix=f"o{secrets.token_hex(3)}.",
        agencies=[replace(one, rejects_per_minute=FLOODED.get(one.agency_id)) for one in EXAMPLE_AGENCIES],
        overrides={"checkpoint": QUICK},
    )
    with Flux(installation, folder / "logs", keep_database=True) as flux:
        asyncio.run(live(flux))
        print(examine(installation, **AT_REST).text())
        for service in ("ingest", "checkpoint", "transform"):
            flux.services[service].stop()
        wait_until("every leaf lies below a published head", lambda: asyncio.run(nothing_unsigned(installation)))
    world = asyncio.run(gather(installation, audit_keys=audit_keys_of(installation)))
    yield Rest(installation, world, frozenset(judge(world, Options(**AT_REST)).violations))
    postgres_server.drop_database(installation.database)


async def nothing_unsigned(installation: Installation) -> bool:
    """Tell whether audit has nothing left to do; stopped earlier it would leave a head in its outbox."""
    connection = await asyncpg.connect(installation.admin_dsn)
    try:
        return bool(await connection.fetchval(NOTHING_UNSIGNED))
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def wire(rest: Rest) -> Wire:
    """Kafka itself, with the installation's topics."""
    return Wire(rest.installation)


async def live(flux: Flux) -> None:
    """Let everything happen that a lane can meet."""
    await asyncio.gather(completed(flux), failed_and_retried(flux), cancelled(flux))
    await strangers(flux)
    await flood(flux)


async def completed(flux: Flux) -> None:
    """A run with a reject, in partitions of three slices and of one; asked for again, and once more with another body."""
    source = texts(flux.folder("archives", "nasa", "one"), 140, lines=2)
    (source / "broken.txt").write_bytes(bytes(range(256)))
    request = a_request(flux, "nasa", "one", source, partitioning={"objects_max": 130})
    first, _again, _conflict = [
        (await ask(flux, "nasa", body))[0] for body in (request, request, request | {"labels": {"a": "b"}})
    ]
    await ends(flux, "nasa", [first.submitted.run_id])


async def failed_and_retried(flux: Flux) -> None:
    """A run without a source fails twice, for it is retried once; an unknown run cannot be."""
    agency = "national-archives"
    empty = flux.folder("archives", agency, "empty")
    (decision,) = await ask(flux, agency, a_request(flux, agency, "empty", empty))
    await ends(flux, agency, [decision.submitted.run_id])
    async with a_producer(flux, agency) as producer:
        await producer.command_and_wait("empty", "retry", "try again")
        await producer.command_and_wait("nothing", "pause", "nobody asked for this")
    wire = Wire(flux.installation)
    ends_told = partial(wire.read, catalogue.COMPLETIONS.of(agency), "flux.run.failed.v1")
    await asyncio.to_thread(wait_until, "the retried run fails again", lambda: len(ends_told()) == 2)


async def cancelled(flux: Flux) -> None:
    """A run is called off while it is at work."""
    agency = "library-of-congress"
    source = texts(flux.folder("archives", agency, "many"), 200)
    (decision,) = await ask(flux, agency, a_request(flux, agency, "many", source, partitioning={"objects_max": 1}))
    async with a_producer(flux, agency) as producer:
        await producer.command_and_wait("many", "cancel", "enough")
    await ends(flux, agency, [decision.submitted.run_id])


async def strangers(flux: Flux) -> None:
    """Records that are no events, on both topics that anybody but relays writes; and reports that come again."""
    wire = Wire(flux.installation)
    wire.write(catalogue.REQUESTS.of("nasa"), b"no event", {})
    wire.write(catalogue.REQUESTS.of("nasa"), b"{}", {"ce_id": b"1", "ce_type": b"flux.run.requested.v1"})
    wire.write(catalogue.PROGRESS.name, b"no event", {})
    for message in [one for one in wire.read(catalogue.PROGRESS.name) if one.key() is not None][:3]:
        wire.repeat(message)


async def flood(flux: Flux) -> None:
    """More refusals than a minute may have, on one Kafka partition: junk, and requests without a token."""
    wire, asked = Wire(flux.installation), {"ce_id": b"1", "ce_type": b"flux.run.requested.v1"}
    for number in range(12):
        headers = asked if number % 3 else {}
        wire.write(catalogue.REQUESTS.of("library-of-congress"), b"{}", headers, partition=0)


class Wire:
    """Kafka itself, for whoever wants to write what Flux would not. `last` is what was gathered after the last write."""

    def __init__(self, installation: Installation) -> None:
        self._settings = installation.kafka()
        self._producer = Producer(self._settings.confluent_options())
        self.last: World | None = None

    def write(
        self, topic: str, value: bytes, headers: dict[str, bytes], *, key: bytes | None = None, **place: Any
    ) -> None:
        """Write one record, and wait until Kafka has it."""
        self._producer.produce(self._settings.topic(topic), value, key, headers=list(headers.items()), **place)
        assert self._producer.flush(10) == 0

    def repeat(self, message: Any, **changed: Any) -> None:
        """Write a record again, to its Kafka partition, as it was or changed."""
        whole = {"value": message.value(), "key": message.key(), "headers": message.headers() or []} | changed
        self._producer.produce(message.topic(), partition=message.partition(), **whole)
        assert self._producer.flush(10) == 0

    def read(self, topic: str, ce_type: str = "") -> list[Any]:
        """Return the committed records of a topic, of one type or of any, in order of arrival in each Kafka partition."""
        consumer = Consumer(
            self._settings.confluent_options()
            | {"group.id": "wire", "isolation.level": "read_committed", "enable.partition.eof": True}
        )
        name = self._settings.topic(topic)
        partitions = consumer.list_topics(name).topics[name].partitions
        consumer.assign([BrokerPartition(name, number, 0) for number in partitions])
        found: list[Any] = []
        left = set(partitions)
        while left:
            for message in consumer.consume(1000, 0.05):
                if message.error():
                    left.discard(message.partition())
                else:
                    found.append(message)
        consumer.close()
        named = [one for one in found if ce_type in ("", dict(one.headers() or {}).get("ce_type", b"").decode())]
        return sorted(named, key=lambda message: (message.partition(), message.offset()))
