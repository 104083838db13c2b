"""Facts of aiokafka's consumer that the lane loop rests on. A red probe means that a fact has moved: each says what then."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import NoOffsetForPartitionError, OffsetOutOfRangeError
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from flux_common.kafka.holding import Fetched


async def send(bootstrap: str, topic: str, *values: bytes, **options: Any) -> None:
    """Write values to Kafka partition 0."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, partition=0, **options)


async def test_a_seek_in_the_callback_is_no_barrier(kafka_bootstrap: str, new_topic: Any, topic_prefix: str) -> None:
    """Records from the group's committed offset are delivered while `on_partitions_assigned` has not yet sought.

    When red: the client waits for its callback now; parking partitions in `Owned` could become a plain seek.
    """
    topic = await new_topic()
    tp = TopicPartition(topic, 0)
    await send(kafka_bootstrap, topic, *[b"%d" % n for n in range(10)])
    group = f"{topic_prefix}g"
    async with AIOKafkaConsumer(bootstrap_servers=kafka_bootstrap, group_id=group, enable_auto_commit=False) as first:
        first.subscribe([topic])
        while not first.assignment():
            await first.getmany(timeout_ms=100)
        await first.commit({tp: 2})

    class Slow(ConsumerRebalanceListener):  # type: ignore[misc]
        sought = False

        async def on_partitions_revoked(self, revoked: Any) -> None:
            pass

        async def on_partitions_assigned(self, assigned: Any) -> None:
            await asyncio.sleep(0.5)
            consumer.seek(tp, 7)
            self.sought = True

    slow = Slow()
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka_bootstrap, group_id=group, enable_auto_commit=False)
    consumer.subscribe([topic], listener=slow)
    starting = asyncio.create_task(consumer.start())
    delivered: list[int] = []
    while not slow.sought:
        await asyncio.sleep(0.02)
        if consumer._fetcher is not None and consumer.assignment():
            fetched = await consumer.getmany(timeout_ms=20)
            delivered += [record.offset for records in fetched.values() for record in records if not slow.sought]
    await starting
    await consumer.stop()

    assert delivered[:1] == [2]


async def test_markers_take_offsets_and_move_the_position(
    kafka_bootstrap: str, new_topic: Any, topic_prefix: str
) -> None:
    """Commit and abort markers and aborted records have offsets; a poll that returns nothing moves past them.

    When red: the count of controls (`LaneBatch.controls`, the ledger) and the Advance without records must be rethought.
    """
    topic = await new_topic()
    tp = TopicPartition(topic, 0)
    async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, transactional_id=f"{topic_prefix}x") as producer:
        async with producer.transaction():
            await producer.send_and_wait(topic, b"a", partition=0)
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"aborted", partition=0)
        await producer.abort_transaction()
    async with AIOKafkaConsumer(bootstrap_servers=kafka_bootstrap, isolation_level="read_committed") as consumer:
        consumer.assign([tp])
        consumer.seek(tp, 1)
        fetched: dict[Any, Any] = {}
        while await consumer.position(tp) < 4:
            fetched |= await consumer.getmany(timeout_ms=200)

    assert fetched == {}


async def test_reset_none_raises_until_it_is_sought(kafka_bootstrap: str, new_topic: Any, topic_prefix: str) -> None:
    """Without an offset, and beyond the log's end, `auto_offset_reset=none` raises and never rewinds.

    When red: a lane could be rewound or skipped silently; find what replaces `none` before anything else.
    """
    topic = await new_topic()
    tp = TopicPartition(topic, 0)
    await send(kafka_bootstrap, topic, b"a", b"b")
    options = {"auto_offset_reset": "none", "enable_auto_commit": False, "group_id": f"{topic_prefix}g"}
    async with AIOKafkaConsumer(bootstrap_servers=kafka_bootstrap, **options) as consumer:
        consumer.assign([tp])
        with pytest.raises(NoOffsetForPartitionError):
            await consumer.getmany(timeout_ms=5000)
        consumer.seek(tp, 9)
        for _ in range(2):
            with pytest.raises(OffsetOutOfRangeError):
                await consumer.getmany(timeout_ms=5000)
        consumer.seek(tp, 1)
        fetched = await consumer.getmany(timeout_ms=5000)

    assert [record.value for records in fetched.values() for record in records] == [b"b"]


async def test_a_poll_of_nowhere_is_a_poll(kafka_bootstrap: str, new_topic: Any) -> None:
    """`getmany` of a partition that does not exist returns nothing, leaves other positions alone, and loses no record.

    When red: `names.NOWHERE` must be replaced by pausing what is full (lanes, the work consumer).
    """
    topic = await new_topic()
    tp = TopicPartition(topic, 0)
    await send(kafka_bootstrap, topic, b"a")
    async with AIOKafkaConsumer(bootstrap_servers=kafka_bootstrap) as consumer:
        consumer.assign([tp])
        consumer.seek(tp, 0)
        await asyncio.sleep(0.3)  # fetched in the background, not delivered
        nothing = await consumer.getmany(TopicPartition("", -1), timeout_ms=300)
        position = await consumer.position(tp)
        fetched = await consumer.getmany(timeout_ms=5000)

    assert (nothing, position) == ({}, 0)
    assert [record.value for record in fetched[tp]] == [b"a"]


async def test_position_of_a_sought_partition_does_not_suspend(kafka_bootstrap: str, new_topic: Any) -> None:
    """`position()` answers in the same step, so that what it says belongs to the poll before it.

    When red: an Advance without records could pass over records that were fetched in between; read the client's state.
    """
    topic = await new_topic()
    async with AIOKafkaConsumer(bootstrap_servers=kafka_bootstrap) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek(TopicPartition(topic, 0), 0)
        await asyncio.sleep(0)  # a consumer that is stopped before its tasks began cancels whoever stops it
        asking = consumer.position(TopicPartition(topic, 0))
        with pytest.raises(StopIteration) as answer:
            asking.send(None)

    assert answer.value.value == 0


async def test_the_client_only_logs_what_a_callback_raises(
    kafka_bootstrap: str, new_topic: Any, topic_prefix: str
) -> None:
    """A raising callback is swallowed and the partition is read.

    When red: the client passes it on; `LaneLoop._fail` in the callbacks may go.
    """
    topic = await new_topic()
    await send(kafka_bootstrap, topic, b"a")

    class Raising(ConsumerRebalanceListener):  # type: ignore[misc]
        def on_partitions_revoked(self, revoked: Any) -> None:
            pass

        def on_partitions_assigned(self, assigned: Any) -> None:
            raise ZeroDivisionError

    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka_bootstrap, group_id=f"{topic_prefix}g", auto_offset_reset="earliest"
    )
    consumer.subscribe([topic], listener=Raising())
    async with consumer:
        fetched: dict[Any, Any] = {}
        while not fetched:
            fetched = await consumer.getmany(timeout_ms=1000)

    assert [record.value for records in fetched.values() for record in records] == [b"a"]


async def test_a_cancelled_poll_counts_as_one_that_never_ended(kafka_bootstrap: str, new_topic: Any) -> None:
    """After `getmany` was cancelled the client thinks that it polls for ever, and never leaves a group it does not serve.

    When red: the client counts right; polls may be cancelled.
    """
    topic = await new_topic()
    async with AIOKafkaConsumer(bootstrap_servers=kafka_bootstrap) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek(TopicPartition(topic, 0), 0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(consumer.getmany(timeout_ms=5000), 0.2)
        await asyncio.sleep(0.3)
        idle = consumer._subscription.fetcher_idle_time

    assert idle == 0


async def test_log_append_time_is_the_brokers(kafka_bootstrap: str, new_topic: Any) -> None:
    """On a LogAppendTime topic a record says type 1 and the broker's time, whatever the producer claims.

    When red: a claim's expiry could be judged by a time that the producer chose; refuse requests until it is mended.
    """
    topic = await new_topic(message_timestamp_type="LogAppendTime")
    await send(kafka_bootstrap, topic, b"a", timestamp_ms=1000)
    async with AIOKafkaConsumer(bootstrap_servers=kafka_bootstrap) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek(TopicPartition(topic, 0), 0)
        (records,) = (await consumer.getmany(timeout_ms=5000)).values()

    assert records[0].timestamp_type == 1
    assert records[0].timestamp > 1_700_000_000_000


async def test_a_header_value_may_be_anything_and_a_name_that_is_not_utf8_raises(
    kafka_bootstrap: str, new_topic: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker takes a header name of any bytes; aiokafka's own reader then raises on every poll, for ever.

    When red at `raises`: aiokafka reads such names now; `wire._read_leniently` may go.
    """
    topic = await new_topic()
    tp = TopicPartition(topic, 0)
    await send(kafka_bootstrap, topic, b"value", headers=[("h", b"\xff\xfe")])
    await send_raw(kafka_bootstrap, topic, b"name", b"AAAA", b"\xff\xfe\x80\x00")
    monkeypatch.setattr(fetcher, "MemoryRecords", MemoryRecords)
    monkeypatch.setattr(fetcher, "FetchResult", Fetched.__bases__[0])
    async with AIOKafkaConsumer(bootstrap_servers=kafka_bootstrap) as consumer:
        consumer.assign([tp])
        consumer.seek(tp, 0)
        fetched = await consumer.getmany(timeout_ms=5000, max_records=1)
        for _ in range(2):
            with pytest.raises(UnicodeDecodeError):
                await consumer.getmany(timeout_ms=5000)

    assert [record.headers for record in fetched[tp]] == [(("h", b"\xff\xfe"),)]


async def send_raw(bootstrap: str, topic: str, value: bytes, name: bytes, raw: bytes) -> None:
    """Write a record whose header `name` is replaced by as many raw bytes, with a CRC that fits."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        batch = producer.create_batch()
        batch.append(key=None, value=value, timestamp=None, headers=[(name.decode(), b"x")])
        batch.close()
        data = bytearray(batch._build().replace(name, raw))
        struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])))
        batch._buffer = data
        await (await producer.send_batch(batch, topic, partition=0))
