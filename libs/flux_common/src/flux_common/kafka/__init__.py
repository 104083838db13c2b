"""Kafka as Flux uses it: lanes, publishers, the topics job, followers, the work consumer.

The only room that knows aiokafka and confluent-kafka; outside it speaks `kernel.positions` and `contracts.envelope`.
Each module opens with its own theory; what the broker and the clients really do is docs/kafka-facts.md, and the
probes under tests/integration/probes say when a fact moves.
"""

from flux_common.kafka.admin import TopicsReport, create_topics, topic_facts, wait_for_topics
from flux_common.kafka.errors import PublishRefused
from flux_common.kafka.follow import TopicFollower
from flux_common.kafka.lanes import LaneHandler, LaneLimits, LaneLoop, LaneStore
from flux_common.kafka.publisher import IdempotentPublisher, TransactionalPublisher
from flux_common.kafka.work import WorkConsumer, WorkListener

__all__ = [
    "IdempotentPublisher",
    "LaneHandler",
    "LaneLimits",
    "LaneLoop",
    "LaneStore",
    "PublishRefused",
    "TopicFollower",
    "TopicsReport",
    "TransactionalPublisher",
    "WorkConsumer",
    "WorkListener",
    "create_topics",
    "topic_facts",
    "wait_for_topics",
]
