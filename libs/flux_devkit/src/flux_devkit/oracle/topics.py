"""Reading topics whole, as any subscriber with `read_committed` may, with a client that Flux itself does not read with.

A Kafka partition is read from its log's start until the client says that it stands at the end (of what is committed: a
transaction that is still open hides what follows, as it does from every reader).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as BrokerPartition

from flux_common.kernel.positions import Received, TopicPartition
from flux_common.settings import KafkaSettings
from flux_devkit.errors import DevkitError
from flux_devkit.oracle.world import Log

SILENCE_SECONDS: Final = 30.0
MESSAGES_MAX: Final = 5_000
POLL_SECONDS: Final = 0.05  # the client waits it out unless it has so many messages


def read_committed(
    settings: KafkaSettings, logs: Mapping[TopicPartition, Log]
) -> dict[TopicPartition, tuple[Received, ...]]:
    """Return every committed record of these Kafka partitions, in order; blocks.

    Raises:
        DevkitError: Kafka refused, or was silent for 30 s.
    """
    wanted = {tp: log.start for tp, log in logs.items() if log.end > log.start}
    if not wanted:
        return {}
    consumer = Consumer(_options(settings))
    try:
        consumer.assign(
            [BrokerPartition(settings.topic(tp.topic), tp.kafka_partition, at) for tp, at in wanted.items()]
        )
        return _read(consumer, settings, set(wanted))
    finally:
        consumer.close()


def _options(settings: KafkaSettings) -> dict[str, Any]:
    return settings.confluent_options() | {
        "group.id": settings.topic("flux-oracle"),
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "fetch.wait.max.ms": 50,
        "queued.min.messages": 100_000,
    }


def _read(
    consumer: Consumer, settings: KafkaSettings, unfinished: set[TopicPartition]
) -> dict[TopicPartition, tuple[Received, ...]]:
    found: dict[TopicPartition, list[Received]] = defaultdict(list)
    heard_at = time.monotonic()
    while unfinished:
        for message in consumer.consume(MESSAGES_MAX, POLL_SECONDS):
            heard_at = time.monotonic()
            tp = _place(message, settings)
            error = message.error()
            if error is None:
                found[tp].append(_received(message, tp))
            elif error.code() == KafkaError._PARTITION_EOF:
                unfinished.discard(tp)
            else:
                raise DevkitError(f"the oracle cannot read {tp}: {error.str()}") from KafkaException(error)
        if time.monotonic() - heard_at > SILENCE_SECONDS:
            raise DevkitError(f"the oracle waits in vain for the end of {', '.join(map(str, sorted(unfinished)[:5]))}")
    return {tp: tuple(records) for tp, records in found.items()}


def _place(message: Message, settings: KafkaSettings) -> TopicPartition:
    topic, partition = message.topic(), message.partition()
    if topic is None or partition is None:
        raise DevkitError(f"Kafka refused the oracle: {message.error()}")
    return TopicPartition(topic.removeprefix(settings.topic_prefix), partition)


def _received(message: Message, tp: TopicPartition) -> Received:
    headers: Any = message.headers() or []  # confluent-kafka's own type also knows a dict, which it never returns
    named = tuple((str(name), value) for name, value in headers)
    return Received(tp.at(message.offset() or 0), _bytes(message.key()), _bytes(message.value()), named)


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
