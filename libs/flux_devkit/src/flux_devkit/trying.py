"""Finding out what a login can really do, by trying it: nothing here reads an ACL."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Collection, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import ClusterAuthorizationFailedError, TransactionalIdAuthorizationFailed
from aiokafka.errors import KafkaError as ClientError
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined] # re-exported without saying so
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramMechanism,
    UserScramCredentialDeletion,
)

from flux_common.contracts.access import SERVICE_QUOTA, Grant, Operation, Resource
from flux_common.kafka.admin import Admin, Forbidden
from flux_common.kafka.raw_admin import describe_acls, describe_quotas, set_quotas
from flux_common.settings import KafkaSettings

SECONDS = 15.0
FINE = {"NO_ERROR", "TOPIC_ALREADY_EXISTS"}
CLUSTER = "kafka-cluster"
NOBODY = "nobody.of.the.tries"  # no login has this name: what may be done to it hurts nobody
ACLS_OF_NOBODY: Any = AclBindingFilter(
    ResourceType.ANY,
    None,  # type: ignore[arg-type] # any name, any host
    ResourcePatternType.ANY,
    f"User:{NOBODY}",
    None,  # type: ignore[arg-type]
    AclOperation.ANY,
    AclPermissionType.ANY,
)
# What takes a right over the cluster, and which: each is tried, for one of them would be enough.
GOVERNING = {
    "see ACLs": Operation.DESCRIBE,
    "drop ACLs": Operation.ALTER,
    "drop a password": Operation.ALTER,
    "see quotas": Operation.DESCRIBE_CONFIGS,
    "see a broker's settings": Operation.DESCRIBE_CONFIGS,
    "set a quota": Operation.ALTER_CONFIGS,
    "set a broker's settings": Operation.ALTER_CONFIGS,
}


class Can(NamedTuple):
    """One thing that somebody can do; the name is the catalogue's."""

    resource: Resource
    name: str
    operation: Operation


class Places(NamedTuple):
    """Where it is tried."""

    topics: Collection[str]
    groups: Collection[str]
    transactional_ids: Collection[str]


def said(grants: Iterable[Grant], places: Places) -> set[Can]:
    """Return what the code says that these grants allow, of what can be tried."""
    topic = (Operation.WRITE, Operation.READ, Operation.DESCRIBE, Operation.CREATE, Operation.DELETE)
    asked = [Can(Resource.TOPIC, name, does) for name in places.topics for does in (*topic, Operation.ALTER_CONFIGS)]
    asked += [Can(Resource.GROUP, name, Operation.READ) for name in places.groups]
    asked += [Can(Resource.TRANSACTIONAL_ID, name, Operation.WRITE) for name in places.transactional_ids]
    asked += [Can(Resource.CLUSTER, CLUSTER, does) for does in GOVERNING.values()]
    return {can for can in asked if any(grant.covers(*can) for grant in grants)}


async def can_do(settings: KafkaSettings, places: Places) -> set[Can]:
    """Return what this login can do there. It tries to delete, too: what may be deleted is gone then."""
    asked = [_writes(settings, places.topics), *(_reads(settings, name) for name in places.topics)]
    asked += [_transacts(settings, name) for name in places.transactional_ids]
    found = set().union(*await asyncio.gather(*asked))
    found |= {Can(Resource.CLUSTER, CLUSTER, GOVERNING[act]) for act in await governs(settings)}
    return found | await asyncio.to_thread(_administers, settings, places)


async def _writes(settings: KafkaSettings, topics: Iterable[str]) -> set[Can]:
    found = set()
    producer = AIOKafkaProducer(**settings.aiokafka_options())
    await producer.start()
    try:
        for name in topics:
            try:
                await producer.send_and_wait(settings.topic(name), b"v", key=b"k", partition=0)
                found.add(Can(Resource.TOPIC, name, Operation.WRITE))
            except ClientError:
                continue
    finally:
        await producer.stop()
    return found


async def _reads(settings: KafkaSettings, name: str) -> set[Can]:
    """Look for the record that an administrator put there."""
    consumer = AIOKafkaConsumer(settings.topic(name), auto_offset_reset="earliest", **settings.aiokafka_options())
    try:
        await consumer.start()
        async with asyncio.timeout(SECONDS):
            while not await consumer.getmany(timeout_ms=200):
                pass
        return {Can(Resource.TOPIC, name, Operation.READ)}
    except ClientError:
        return set()
    finally:
        await consumer.stop()


async def _transacts(settings: KafkaSettings, name: str) -> set[Can]:
    producer = AIOKafkaProducer(transactional_id=settings.topic(name), **settings.aiokafka_options())
    try:
        await producer.start()
        return {Can(Resource.TRANSACTIONAL_ID, name, Operation.WRITE)}
    except (TransactionalIdAuthorizationFailed, ClusterAuthorizationFailedError):
        return set()
    finally:
        await producer.stop()


async def governs(settings: KafkaSettings) -> set[str]:
    """Return what this login can do to the whole cluster, of `GOVERNING`; it is tried on what is nobody's."""
    ask = Admin(settings).ask
    (cluster,) = (await ask(lambda client: {"cluster": client.describe_cluster()})).values()
    broker = ConfigResource.Type.BROKER, cluster.nodes[0].id_string
    setting = ConfigEntry("log.cleaner.threads", "1", incremental_operation=AlterConfigOpType.SET)
    order = ConfigResource(*broker, incremental_configs=[setting])
    password = UserScramCredentialDeletion(NOBODY, ScramMechanism.SCRAM_SHA_512)
    tried = {
        "see ACLs": describe_acls(settings),
        "drop ACLs": ask(lambda client: client.delete_acls([ACLS_OF_NOBODY])),
        "drop a password": ask(
            lambda client: client.alter_user_scram_credentials([password]), passed=KafkaError.RESOURCE_NOT_FOUND
        ),
        "see quotas": describe_quotas(settings),
        "see a broker's settings": ask(lambda client: client.describe_configs([ConfigResource(*broker)])),
        "set a quota": set_quotas(settings, {NOBODY: SERVICE_QUOTA}),
        "set a broker's settings": ask(lambda client: client.incremental_alter_configs([order], validate_only=True)),
    }
    return {act for act, way in tried.items() if await _is_allowed(way)}


async def _is_allowed(way: Awaitable[Any]) -> bool:
    try:
        await way
    except Forbidden:
        return False
    return True


def _administers(settings: KafkaSettings, places: Places) -> set[Can]:
    client: Any = AdminClient(settings.confluent_options(), logger=logging.getLogger(__name__))
    named = {settings.topic(name): name for name in places.topics}
    setting = ConfigEntry("retention.ms", "1", incremental_operation=AlterConfigOpType.SET)
    orders = [ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[setting]) for name in named]
    tried = {
        Operation.DESCRIBE: client.describe_topics(TopicCollection(list(named))),
        Operation.CREATE: client.create_topics([NewTopic(name, 1, 1) for name in named], validate_only=True),
        Operation.ALTER_CONFIGS: {
            order.name: future for order, future in client.incremental_alter_configs(orders, validate_only=True).items()
        },
        Operation.DELETE: client.delete_topics(list(named)),
    }
    found = {
        Can(Resource.TOPIC, named[name], operation)
        for operation, answers in tried.items()
        for name in _allowed(answers)
    }
    return found | {
        Can(Resource.GROUP, name, Operation.READ) for name in places.groups if _commits(client, settings, name)
    }


def _commits(client: Any, settings: KafkaSettings, group: str) -> bool:
    """Commit an offset for a group; which topic it is of does not matter to the group."""
    place = [TopicPartition(settings.topic("flux.nowhere.v1"), 0, 0)]
    asked = client.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(settings.topic(group), place)])
    try:
        (answer,) = [future.result(SECONDS) for future in asked.values()]
    except KafkaException as problem:
        return bool(problem.args[0].code() != KafkaError.GROUP_AUTHORIZATION_FAILED)
    refused = (partition.error for partition in answer.topic_partitions)
    return all(error is None or error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED for error in refused)


def _allowed(answers: Mapping[str, Future[Any]]) -> set[str]:
    return {name for name, future in answers.items() if _name_of_error(future) in FINE}


def _name_of_error(future: Future[Any]) -> str:
    try:
        future.result(SECONDS)
    except KafkaException as problem:
        return str(problem.args[0].name())
    return "NO_ERROR"
