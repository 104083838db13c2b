"""Publishers on a real Kafka: what is acknowledged is there, and a shard's rows are there exactly once."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from flux_common.contracts.envelope import Outgoing
from flux_common.kafka import publisher
from flux_common.kafka.errors import PublishRefused
from flux_common.kafka.publisher import IdempotentPublisher, TransactionalPublisher
from flux_common.kernel.clock import SystemClock
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Fenced, Unavailable
from flux_common.kernel.ids import murmur2
from flux_common.settings import KafkaSettings

SHARD = Path(__file__).with_name("shard.py")
CURSORS = "flux-internal.relay-cursors.v1"


def event(topic: str, number: int, value: bytes | None = None, **more: Any) -> Outgoing:
    """Return a numbered event."""
    return Outgoing(topic, f"k{number}", f"id-{number}", [("ce_id", b"x")], value or b"%d" % number, "nasa", **more)


async def read(
    settings: KafkaSettings, topic: str, partitions: int = 1, isolation: str = "read_committed"
) -> list[Any]:
    """Return every record of a topic up to its present end."""
    tps = [TopicPartition(settings.topic(topic), n) for n in range(partitions)]
    found: list[Any] = []
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap, isolation_level=isolation, enable_auto_commit=False
    )
    async with consumer:
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        ends = await consumer.end_offsets(tps)
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += records
    return found


@pytest.fixture
async def sender(settings: KafkaSettings) -> Any:
    """An idempotent publisher."""
    made = IdempotentPublisher(settings)
    yield made
    await made.close()


@pytest.fixture
async def transport(settings: KafkaSettings, create_topic: Any) -> Any:
    """The transport of shard 2 of ingest, with its cursor topic, not open."""
    await create_topic(CURSORS, 12, cleanup_policy="compact")
    made = TransactionalPublisher(settings, "ingest", 2, SystemClock())
    yield made
    await made.close()


async def test_what_is_sent_is_there(settings: KafkaSettings, create_topic: Any, sender: IdempotentPublisher) -> None:
    """Events arrive under their own key, headers and Kafka partition; without one, murmur2 of the key places them."""
    topic = await create_topic("t", 3)
    await sender.send([event(topic, n) for n in range(20)])
    await sender.send([event(topic, 20, kafka_partition=2)])
    found = await read(settings, topic, 3)

    assert sorted(int(record.value) for record in found) == list(range(21))
    assert {record.headers for record in found} == {(("ce_id", b"x"),)}
    assert all(r.partition == (2 if r.value == b"20" else murmur2(r.key) % 3) for r in found)


async def test_an_oversized_event_is_refused_before_anything_is_sent(
    settings: KafkaSettings, create_topic: Any, sender: IdempotentPublisher
) -> None:
    """The refusal names the event; the publisher goes on."""
    topic = await create_topic("t")
    with pytest.raises(PublishRefused) as refused:
        await sender.send([event(topic, 0), event(topic, 1, b"x" * 2**21)])
    await sender.send([event(topic, 2)])

    assert (refused.value.index, refused.value.code) == (1, Code.TOO_LARGE)
    assert [record.value for record in await read(settings, topic)] == [b"2"]


async def test_a_refusal_of_the_broker_does_not_poison_later_sends(
    settings: KafkaSettings, create_topic: Any, sender: IdempotentPublisher
) -> None:
    """After the broker refused a batch (its topic allows less than the catalogue says) the next send works."""
    topic = await create_topic("t", max_message_bytes="2000")
    await sender.send([event(topic, 0)])
    with pytest.raises(PublishRefused) as refused:
        await sender.send([event(topic, 1), event(topic, 2, b"x" * 5000), event(topic, 3)])
    await sender.send([event(topic, 4)])

    assert (refused.value.index, refused.value.code) == (1, Code.TOO_LARGE)
    assert [record.value for record in await read(settings, topic)][-1] == b"4"


async def test_senders_at_once_are_all_served(
    settings: KafkaSettings, create_topic: Any, sender: IdempotentPublisher
) -> None:
    """Many tasks share one publisher."""
    topic = await create_topic("t")
    await asyncio.gather(*(sender.send([event(topic, n)]) for n in range(50)))

    assert sorted(int(record.value) for record in await read(settings, topic)) == list(range(50))


async def test_a_missing_broker_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """No broker: Unavailable, within the deadline."""
    monkeypatch.setattr(publisher, "OPEN_SECONDS", 1.0)
    lost = IdempotentPublisher(KafkaSettings(bootstrap="127.0.0.1:1"))
    with pytest.raises(Unavailable):
        await lost.send([event("t", 0)])


async def test_rows_and_cursor_are_one_transaction(
    settings: KafkaSettings, create_topic: Any, transport: TransactionalPublisher
) -> None:
    """The first open finds no cursor; after a publish the rows are there, and the next open finds its cursor."""
    topic = await create_topic("t")
    first = await transport.open()
    await transport.publish([event(topic, n) for n in (1, 2, 3)], 3)
    await transport.publish([event(topic, n) for n in (4, 5)], 5)
    second = await transport.open()
    cursors = await read(settings, CURSORS, 12)

    assert (first, second) == (None, 5)
    assert [int(record.value) for record in await read(settings, topic)] == [1, 2, 3, 4, 5]
    assert {(record.partition, record.key) for record in cursors} == {(2, b"ingest/2")}


async def test_a_row_that_can_never_be_written_is_named_and_nothing_is_committed(
    settings: KafkaSettings, create_topic: Any, transport: TransactionalPublisher
) -> None:
    """Missing topic, a Kafka partition that is not there, too large for us, too large for the topic: index and code."""
    topic, small = await create_topic("t"), await create_topic("small", max_message_bytes="2000")
    bad = [
        (event("absent", 2), Code.TOPIC_MISSING),
        (event(topic, 2, kafka_partition=7), Code.TOPIC_MISSING),
        (event(topic, 2, b"x" * 2**21), Code.TOO_LARGE),
        (event(small, 2, b"x" * 5000), Code.TOO_LARGE),
    ]
    for row, code in bad:
        await transport.open()
        with pytest.raises(PublishRefused) as refused:
            await transport.publish([event(topic, 1), row, event(small, 3)], 3)
        assert (refused.value.index, refused.value.code) == (1, code)
    cursor = await transport.open()

    assert cursor is None
    assert await read(settings, topic) == []
    assert await read(settings, small) == []


async def test_refusals_are_said_in_the_callers_words(
    settings: KafkaSettings, transport: Any, create_topic: Any
) -> None:
    """The relay's own exception is raised where it is given."""

    class Mine(Exception):
        pass

    mine = TransactionalPublisher(
        settings,
        "ingest",
        2,
        SystemClock(),
        refused=lambda index, code, message: Mine(index, code),  # type: ignore[arg-type,return-value]
    )
    await mine.open()
    with pytest.raises(Mine) as refused:
        await mine.publish([event("absent", 0)], 1)

    assert refused.value.args == (0, Code.TOPIC_MISSING)


async def test_an_older_relay_is_fenced(
    settings: KafkaSettings, create_topic: Any, transport: TransactionalPublisher
) -> None:
    """Opening a shard fences whoever had it: it publishes nothing any more, and says so by Fenced."""
    topic = await create_topic("t")
    older = TransactionalPublisher(settings, "ingest", 2, SystemClock())
    await older.open()
    await older.publish([event(topic, 1)], 1)
    cursor = await transport.open()
    with pytest.raises(Fenced):
        await older.publish([event(topic, 2)], 2)
    await transport.publish([event(topic, 2)], 2)
    await older.close()

    assert cursor == 1
    assert [record.value for record in await read(settings, topic)] == [b"1", b"2"]


async def test_an_older_cursor_is_found_where_the_end_has_none(
    settings: KafkaSettings, create_topic: Any, transport: TransactionalPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the last offsets are aborted transactions the cursor is read from the log start."""
    topic = await create_topic("t")
    monkeypatch.setattr(publisher, "CURSOR_TAIL", 4)
    await transport.open()
    await transport.publish([event(topic, 1)], 1)
    async with AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap, transactional_id=settings.topic("other")
    ) as other:
        for _ in range(4):
            await other.begin_transaction()
            await other.send_and_wait(settings.topic(CURSORS), b'{"cursor":99}', key=b"ingest/2", partition=2)
            await other.abort_transaction()

    assert await transport.open() == 1


async def test_a_relay_that_is_killed_at_any_point_publishes_each_row_once(
    settings: KafkaSettings, create_topic: Any
) -> None:
    """Eight SIGKILLs: read_committed sees rows 1 to COUNT once each, in order per key."""
    await create_topic(CURSORS, 12, cleanup_policy="compact")
    topic, count, seed = await create_topic("t", 2), 1200, random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    killed, cursor = 0, 0
    while cursor < count:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(SHARD), settings.bootstrap, settings.topic_prefix, topic, str(count),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        told = [await process.stdout.readline()]
        cursor = int(told[0].split()[1])
        if killed < 8:
            for _ in range(chance.randrange(4)):
                told.append(await process.stdout.readline())
            await asyncio.sleep(chance.random() * 0.015)
            process.send_signal(signal.SIGKILL)
            killed += 1
        else:
            await process.stdout.read()
            cursor = count
        await process.wait()
    records = await read(settings, topic, 2)
    by_key: dict[bytes, list[int]] = {}
    for record in records:
        by_key.setdefault(record.key, []).append(int(record.value))

    assert killed == 8
    assert sorted(int(record.value) for record in records) == list(range(1, count + 1))
    assert all(numbers == sorted(numbers) for numbers in by_key.values())
