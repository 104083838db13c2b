"""Where does a secret turn up? Searches everything that a Flux writes for any slice of 20 characters of what must not leave.

Theory. A secret is known here, because the caller made it: a token, or a marked value of a payload. It leaks if 20 of its
characters in a row stand anywhere: a key, value or header of a record, a row of a table, a line of a log, a span, a metric.
Topics are read as they are stored, with what was aborted; tables are copied out in PostgreSQL's binary format, so that bytes
are bytes. Every slice of 20 holds one of the secret's blocks of 10 that begin at 0, 10, 20 …: those are looked for, and a hit
is a leak if it reaches 20 characters both ways together. So one pass over the bytes for each block is enough.

An agency's own requests topic is left out: there its producer wrote the token and the value itself. Nothing else is.
"""

from __future__ import annotations

import http.client
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

from flux_common.contracts.catalogue import REQUESTS
from flux_common.postgres.queries import Queries
from flux_devkit.errors import DevkitError
from flux_devkit.flux import Flux

SLICE: Final = 20
_BLOCK: Final = SLICE // 2
_SQL = Queries.load("flux_devkit", "canary.sql")
_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Leak:
    """A secret's slice where it must not be. It names the secret and the place; the slice itself it does not repeat."""

    where: str
    secret: str
    at: int


@dataclass(frozen=True, slots=True)
class Searched:
    """How much was looked at, in bytes by kind of place, and what was found."""

    size: Mapping[str, int]
    leaks: tuple[Leak, ...]


Place = tuple[str, str, bytes]  # kind, name, what stands there


async def search(flux: Flux, secrets: Mapping[str, str], *, traces: Iterable[Path] = ()) -> Searched:
    """Search all that an installation wrote for `secrets` (name to text). Raises DevkitError if something cannot be read."""
    size: dict[str, int] = {}
    leaks: list[Leak] = []
    places = [*records(flux), *texts(flux, traces), *metrics(flux), *[place async for place in rows(flux)]]
    for kind, name, content in places:
        size[kind] = size.get(kind, 0) + len(content)
        leaks += (
            Leak(f"{kind} {name}", secret, at)
            for secret, text in secrets.items()
            for at in slices_in(content, text.encode())
        )
    return Searched(size, tuple(leaks))


def slices_in(content: bytes, secret: bytes) -> Iterator[int]:
    """Yield the place in `secret` of each run of at least 20 of its bytes that stands in `content`, once."""
    if len(secret) < SLICE:
        raise ValueError(f"a secret to search for has at least {SLICE} characters")
    seen: set[tuple[int, int]] = set()
    for start in range(0, len(secret) - _BLOCK + 1, _BLOCK):
        at = content.find(secret[start : start + _BLOCK])
        while at >= 0:
            before = _agreeing(content[max(0, at - start) : at][::-1], secret[:start][::-1])
            after = _agreeing(content[at : at + len(secret) - start], secret[start:])
            if before + after >= SLICE and (at - before, start - before) not in seen:
                seen.add((at - before, start - before))
                yield start - before
            at = content.find(secret[start : start + _BLOCK], at + 1)


def _agreeing(one: bytes, other: bytes) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def records(flux: Flux) -> Iterator[Place]:
    """Yield every record of the installation's topics, aborted ones too, but for the producers' own requests."""
    prefix = flux.installation.topic_prefix
    bootstrap = flux.installation.servers.kafka_bootstrap
    written = {prefix + REQUESTS.of(agency.agency_id) for agency in flux.installation.agencies}
    found = AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=_SECONDS).topics
    topics = [topic for topic in found if topic.startswith(f"{prefix}flux") and topic not in written]
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": f"{prefix}canary", "enable.auto.commit": False,
                         "isolation.level": "read_uncommitted", "enable.partition.eof": True})  # fmt: skip
    try:
        consumer.assign([TopicPartition(t, n, OFFSET_BEGINNING) for t in topics for n in found[t].partitions])
        yield from _to_the_ends(consumer, sum(len(found[topic].partitions) for topic in topics))
    finally:
        consumer.close()


def _to_the_ends(consumer: Any, partitions: int) -> Iterator[Place]:
    ended: set[tuple[str, int]] = set()
    while len(ended) < partitions:
        message = consumer.poll(_SECONDS)
        if message is None:
            raise DevkitError(f"the topics could not be read to their ends within {_SECONDS:.0f} s")
        error = message.error()
        if error is None:
            headers = b"\n".join(name.encode() + b"=" + (value or b"") for name, value in message.headers() or ())
            content = b"\n".join((message.key() or b"", headers, message.value() or b""))
            yield "record", f"{message.topic()}/{message.partition()}/{message.offset()}", content
        elif error.code() == KafkaError._PARTITION_EOF:
            ended.add((message.topic(), message.partition()))
        else:
            raise DevkitError(f"the topics could not be read to their ends: {error}")


def texts(flux: Flux, traces: Iterable[Path]) -> Iterator[Place]:
    """Yield the services' logs and the files of spans."""
    for kind, paths in (("log", sorted(flux.logs.glob("*.log"))), ("trace", traces)):
        for path in paths:
            yield kind, path.name, path.read_bytes()


def metrics(flux: Flux) -> Iterator[Place]:
    """Yield what each service says at /metrics."""
    for service in flux.services:
        connection = http.client.HTTPConnection("127.0.0.1", service.ops_port, timeout=_SECONDS)
        try:
            connection.request("GET", "/metrics")
            yield "metrics", service.options.name, connection.getresponse().read()
        finally:
            connection.close()


async def rows(flux: Flux) -> AsyncIterator[Place]:
    """Yield every table of the database, whole, as its bytes."""
    connection = await asyncpg.connect(flux.installation.admin_dsn)
    try:
        for schema, table in await connection.fetch(_SQL["tables"]):
            content = bytearray()
            await connection.copy_from_table(table, schema_name=schema, output=_into(content), format="binary")
            yield "table", f"{schema}.{table}", bytes(content)
    finally:
        await connection.close()


def _into(content: bytearray) -> Any:
    async def write(data: bytes) -> None:
        content.extend(data)

    return write
