"""What a topic is called here, and what it is called on the broker.

Everywhere in Flux a topic has its catalogue name. A `topic_prefix` (tests that share one broker) exists on the broker
alone; it is put on and taken off in this file and nowhere else. Groups and transactional ids are prefixed as well, so
two prefixes never meet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from aiokafka import TopicPartition as BrokerPartition

from flux_common.kernel.positions import TopicPartition

NOWHERE: Final = BrokerPartition("", -1)  # polled alone it returns nothing, yet it is a poll


class Names:
    """Maps names to the broker and back."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def outward(self, name: str) -> str:
        """Return what the topic, group or transactional id `name` is called on the broker."""
        return self._prefix + name

    def inward(self, name: str) -> str:
        """Return the catalogue's name of a topic of the broker; raises ValueError for a topic of another prefix."""
        if not name.startswith(self._prefix):
            raise ValueError(f"topic {name!r} has not the prefix {self._prefix!r}")
        return name[len(self._prefix) :]

    def outward_partition(self, tp: TopicPartition) -> BrokerPartition:
        """Return a Kafka partition as the client names it."""
        return BrokerPartition(self._prefix + tp.topic, tp.kafka_partition)

    def inward_partition(self, tp: BrokerPartition) -> TopicPartition:
        """Return a Kafka partition as Flux names it."""
        return TopicPartition(self.inward(tp.topic), tp.partition)

    def pattern(self, topics: str | Iterable[str]) -> str:
        """Return the anchored regular expression of the broker's topics that are meant.

        `topics` is a regular expression over catalogue names, without anchors, or a list of plain names.
        """
        inner = topics if isinstance(topics, str) else "|".join(re.escape(name) for name in sorted(topics))
        return rf"\A{re.escape(self._prefix)}(?:{inner})\Z"
