"""How far behind Flux's consumer groups are, as the broker sees it.

The groups' offsets are advisory (a lane's row is the truth, and moves first), so the lag here is never too small. The
end is the high watermark: transaction markers count as records until their group has passed them. Failure: `Unavailable`.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException
from confluent_kafka.admin import AdminClient

from flux_common.kafka.admin import Admin
from flux_common.kafka.names import Names
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Unavailable
from flux_common.kernel.positions import TopicPartition
from flux_common.settings import KafkaSettings

GROUP_PREFIX: Final = "flux-"
ANSWER_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Lag:
    """One group on one Kafka partition; `lag` counts offsets between what it committed and the end of the log."""

    group: str
    topic: str
    kafka_partition: int
    committed: int
    end: int

    @property
    def lag(self) -> int:
        """Return how many offsets are left."""
        return max(self.end - self.committed, 0)


async def lags(settings: KafkaSettings, prefix: str = GROUP_PREFIX) -> list[Lag]:
    """Return the lag of every group of this installation whose name begins with `prefix`. Raises Unavailable."""
    names = Names(settings.topic_prefix)
    committed = await asyncio.to_thread(_committed, settings, names, prefix)
    logs = await Admin(settings).logs(sorted({tp for _, tp in committed}))
    return [
        Lag(group, tp.topic, tp.kafka_partition, offset, logs[tp].log_end)
        for (group, tp), offset in sorted(committed.items())
        if tp in logs
    ]


def _committed(settings: KafkaSettings, names: Names, prefix: str) -> dict[tuple[str, TopicPartition], int]:
    client: Any = AdminClient(settings.confluent_options(), logger=logging.getLogger(__name__))
    listed = _answer(
        client.list_consumer_groups(request_timeout=min(ANSWER_SECONDS, settings.request_timeout_ms / 1000))
    )
    if listed.errors:  # an outage is no error of the call, but a list of those that did not answer
        raise _outage() from listed.errors[0]
    found: dict[tuple[str, TopicPartition], int] = {}
    for group in sorted(one.group_id for one in listed.valid if one.group_id.startswith(names.outward(prefix))):
        asked = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
        for partition in _answer(asked[group]).topic_partitions:
            if partition.offset >= 0 and partition.topic.startswith(names.outward("")):
                tp = TopicPartition(names.inward(partition.topic), partition.partition)
                found[group.removeprefix(names.outward("")), tp] = partition.offset
    return found


def _answer(future: Future[Any]) -> Any:
    try:
        return future.result(ANSWER_SECONDS + 5)
    except (KafkaException, TimeoutError) as problem:
        raise _outage() from problem


def _outage() -> Unavailable:
    return Unavailable(Code.BROKER_UNAVAILABLE, "Kafka did not answer: list consumer groups")
