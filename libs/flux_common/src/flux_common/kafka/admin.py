"""The topics job, and what is asked of the broker about topics.

The catalogue is the authority. The job creates what is missing, and never deletes or alters: where a topic differs from
the catalogue (Kafka partitions, settings) it says so, and a person decides. Two jobs at once are as good as one, for
"exists already" is success. Only confluent-kafka shows topic ids (aiokafka's metadata has none); its calls block, so
they run in a thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, TypeVar

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as AdminPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined] # re-exported without saying so
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
)

from flux_common.contracts.catalogue import REPLICATION, TOPICS, TopicSpec, topic_names
from flux_common.kafka.names import Names
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Unavailable
from flux_common.kernel.positions import TopicPartition
from flux_common.observability.logging import get_logger
from flux_common.settings import KafkaSettings

ANSWER_SECONDS: Final = 15.0
SETTLE_SECONDS: Final = 10.0  # how long a Kafka partition may be without a known leader

log = get_logger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LogFacts:
    """What the broker says of one Kafka partition: the topic's id, the log's start, its end (high watermark)."""

    topic_id: str
    log_start: int
    log_end: int


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What the broker says of a topic."""

    topic_id: str
    kafka_partitions: int


@dataclass(slots=True)
class TopicsReport:
    """What the topics job found and did; every name is the catalogue's."""

    ids: dict[str, str] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)
    drift: list[str] = field(default_factory=list)


class Unsettled(Unavailable):
    """A Kafka partition has no leader that the client knows of: just created, or just moved. Asked again for a while."""


class Forbidden(Unavailable):
    """The login may not ask this of the brokers, or they have no logins at all. It may be given the right meanwhile."""


class Admin:
    """confluent-kafka's admin client in a thread, speaking Flux's names; connects when it is asked something.

    It has threads and connections of its own, so a process shares one (`of`).
    """

    @classmethod
    @lru_cache(maxsize=8)
    def of(cls, settings: KafkaSettings) -> Admin:
        """Return this process's client for `settings`."""
        return cls(settings)

    def __init__(self, settings: KafkaSettings, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._settings, self._seconds = settings, answer_seconds
        self._wait = {"request_timeout": answer_seconds}
        self._names = Names(settings.topic_prefix)
        self._client: Any = None

    async def answers(self, seconds: float) -> None:
        """Ask the cluster who it is, which needs no right. Raises Unavailable: no broker answers, or none lets us in."""
        await self.ask(lambda client: {"cluster": client.describe_cluster(request_timeout=seconds)})

    async def describe(self, topics: Iterable[str]) -> dict[str, TopicFacts]:
        """Return the facts of those topics that exist and may be seen. Raises Unavailable."""
        wanted = [self._names.outward(name) for name in topics]
        if not wanted:
            return {}
        answers = await self.ask(
            lambda client: client.describe_topics(TopicCollection(wanted), **self._wait), missing_ok=True
        )
        return {
            self._names.inward(name): TopicFacts(str(answer.topic_id), len(answer.partitions))
            for name, answer in answers.items()
        }

    async def logs(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, LogFacts]:
        """Return the facts of Kafka partitions; a topic that is not there is left out. Raises Unavailable."""
        topics = await self.describe(sorted({tp.topic for tp in tps}))
        known = [tp for tp in tps if tp.topic in topics]
        starts = await self.offsets(known, _EARLIEST)
        ends = await self.offsets(known, _LATEST)
        return {
            tp: LogFacts(topics[tp.topic].topic_id, starts[tp], ends[tp]) for tp in known if tp in starts and tp in ends
        }

    async def offsets(self, tps: Sequence[TopicPartition], which: Any) -> dict[TopicPartition, int]:
        """Return the offset that `which` means on each Kafka partition, uncommitted records included."""
        if not tps:
            return {}
        asked = {AdminPartition(self._names.outward(tp.topic), tp.kafka_partition): which for tp in tps}
        answers = await self.ask(
            lambda client: client.list_offsets(asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, **self._wait),
            missing_ok=True,
        )
        return {
            TopicPartition(self._names.inward(tp.topic), tp.partition): answer.offset for tp, answer in answers.items()
        }

    async def create(self, topics: Sequence[NewTopic]) -> set[str]:
        """Create topics; return the names of those that were not there before. Raises Unavailable."""
        wanted = {topic.topic for topic in topics}
        answers = await self.ask(
            lambda client: client.create_topics(list(topics), operation_timeout=self._seconds, **self._wait),
            passed=KafkaError.TOPIC_ALREADY_EXISTS,
        )
        return {self._names.inward(name) for name in wanted & set(answers)}

    async def configs(self, topics: Iterable[str]) -> dict[str, dict[str, str]]:
        """Return the settings of topics as the broker applies them. Raises Unavailable."""
        asked = [ConfigResource(ConfigResource.Type.TOPIC, self._names.outward(name)) for name in topics]
        if not asked:
            return {}
        answers = await self.ask(lambda client: client.describe_configs(asked, **self._wait))
        return {
            self._names.inward(resource.name): {name: entry.value for name, entry in answer.items()}
            for resource, answer in answers.items()
        }

    async def ask(
        self, call: Callable[[Any], Mapping[T, Future[Any]]], *, missing_ok: bool = False, passed: int | None = None
    ) -> dict[T, Any]:
        """Return the answers by what was asked; what is missing, or fails with `passed`, is left out.

        Raises:
            Forbidden: only an administrator may ask this.
            Unavailable: the brokers do not answer, or not this.
        """
        deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
        while True:
            try:
                return await asyncio.to_thread(self._ask_now, call, _MISSING if missing_ok else (passed,))
            except Unsettled:  # a leader is being elected, or the client has not heard of it yet
                if asyncio.get_running_loop().time() >= deadline:
                    raise
                await asyncio.sleep(0.1)

    def _ask_now(self, call: Callable[[Any], Mapping[T, Future[Any]]], passed: tuple[int | None, ...]) -> dict[T, Any]:
        if self._client is None:
            quiet = logging.getLogger("flux_common.kafka.librdkafka")
            self._client = AdminClient(self._settings.confluent_options(), logger=quiet)
        answers = {}
        for asked, future in call(self._client).items():
            try:
                answers[asked] = future.result(self._seconds + 5)
            except KafkaException as problem:
                error = problem.args[0]
                if error.code() not in passed:
                    refused = _REFUSALS.get(error.code(), Unavailable)
                    message = f"Kafka refused a question ({error.name()})"
                    raise refused(Code.BROKER_UNAVAILABLE, message) from problem
            except TimeoutError as problem:
                raise Unavailable(Code.BROKER_UNAVAILABLE, "Kafka did not answer in time") from problem
        return answers


_EARLIEST: Final = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_REFUSALS: Final = {
    KafkaError.NOT_LEADER_FOR_PARTITION: Unsettled,
    KafkaError.LEADER_NOT_AVAILABLE: Unsettled,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: Forbidden,
    KafkaError.SECURITY_DISABLED: Forbidden,
}
_MISSING: Final = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED)


async def create_topics(
    settings: KafkaSettings, agencies: Sequence[str], *, development: bool, replication: int | None = None
) -> TopicsReport:
    """Create every topic of the catalogue for these agencies, and report ids, what is new, and what differs.

    `development` means one replica; outside it `replication` (3) replicas, two of which must have a record.

    Raises:
        Unavailable: the broker does not answer, or refuses to create a topic.
    """
    admin, names = Admin.of(settings), Names(settings.topic_prefix)
    wanted = _wanted(agencies)
    copies = replication or (1 if development else REPLICATION)
    present = await admin.describe(wanted)
    report = TopicsReport()
    missing = [
        NewTopic(names.outward(name), spec.kafka_partitions, copies, config=spec.config(development=development))
        for name, spec in wanted.items()
        if name not in present
    ]
    if missing:
        report.created = sorted(await admin.create(missing))
        present = await wait_for_topics(settings, wanted, admin=admin)
    report.ids = {name: facts.topic_id for name, facts in sorted(present.items())}
    report.drift = await _drift(admin, wanted, present, development=development)
    return report


async def missing_topics(settings: KafkaSettings, agencies: Sequence[str]) -> list[str]:
    """Return which topics the topics job would create. Raises Unavailable."""
    wanted = _wanted(agencies)
    return sorted(set(wanted) - set(await Admin.of(settings).describe(wanted)))


async def topic_facts(settings: KafkaSettings, topics: Iterable[str]) -> dict[str, TopicFacts]:
    """Return id and number of Kafka partitions of those topics that exist. Raises Unavailable."""
    return await Admin.of(settings).describe(topics)


async def wait_for_topics(
    settings: KafkaSettings, topics: Iterable[str], *, timeout: float = 30.0, admin: Admin | None = None
) -> dict[str, TopicFacts]:
    """Wait until all topics exist and return their facts.

    Raises:
        Unavailable: some are still missing after `timeout` seconds (TOPIC_MISSING), or the broker does not answer.
    """
    admin = admin or Admin.of(settings)
    wanted = set(topics)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        present = await admin.describe(sorted(wanted))
        missing = wanted - set(present)
        if not missing:
            return present
        if loop.time() >= deadline:
            raise Unavailable(Code.TOPIC_MISSING, f"Missing topics: {', '.join(sorted(missing))}; run the topics job")
        await asyncio.sleep(0.2)


def _wanted(agencies: Sequence[str]) -> dict[str, TopicSpec]:
    return {name: spec for spec in TOPICS for name in topic_names(spec, list(agencies))}


async def _drift(
    admin: Admin, wanted: Mapping[str, TopicSpec], present: Mapping[str, TopicFacts], *, development: bool
) -> list[str]:
    configs = await admin.configs(sorted(wanted))
    found: list[str] = []
    for name, spec in sorted(wanted.items()):
        if present[name].kafka_partitions != spec.kafka_partitions:
            found.append(f"{name}: {present[name].kafka_partitions} Kafka partitions, not {spec.kafka_partitions}")
        found += [
            f"{name}: {setting} is {configs[name].get(setting)}, not {value}"
            for setting, value in spec.config(development=development).items()
            if configs[name].get(setting) != value
        ]
    for line in found:
        log.warning("topic differs from the catalogue", difference=line)
    return found
