"""A broker with logins and ACLs: clients of this room log in, and what is forbidden is said of the event it concerns."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from flux_common.contracts.envelope import Outgoing
from flux_common.kafka.errors import PublishRefused
from flux_common.kafka.follow import TopicFollower
from flux_common.kafka.publisher import IdempotentPublisher, TransactionalPublisher
from flux_common.kernel.clock import SystemClock
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Unavailable
from flux_common.settings import KafkaSettings
from flux_devkit.kafka import EmbeddedKafka, KafkaOptions

SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required"
CURSORS = "flux-internal.relay-cursors.v1"
NASA, ESA = "flux.nasa.run.decisions.v1", "flux.esa.run.decisions.v1"
ADMIN = {
    "security.protocol": "SASL_PLAINTEXT",
    "sasl.mechanism": "SCRAM-SHA-512",
    "sasl.username": "admin",
    "sasl.password": "right",
}
OPTIONS = KafkaOptions(
    properties={
        "listeners": "SASL_PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": "SASL_PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
        "inter.broker.listener.name": "SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
        "listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config": f'{SCRAM} username="admin" password="right";',
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:admin;User:ANONYMOUS",  # anonymous is the controller's listener alone
        "allow.everyone.if.no.acl.found": "false",
    },
    client=ADMIN,
    format_arguments=(
        "--add-scram", "SCRAM-SHA-512=[name=admin,password=right]",
        "--add-scram", "SCRAM-SHA-512=[name=ingest,password=secret]",
    ),
)  # fmt: skip


@pytest.fixture
async def settings(
    flux_home: Any, flux_session: Any, tmp_path: Path, until: Callable[..., Any]
) -> AsyncIterator[KafkaSettings]:
    """Settings of `ingest` on a broker where it may write what is internal and nasa's, and only see what is esa's."""
    folder = flux_session.folder / "data" / f"kafka-{secrets.token_hex(4)}"
    broker = EmbeddedKafka(flux_home, folder, OPTIONS, hold=flux_session.place.hold)
    await asyncio.to_thread(broker.start)
    try:
        await asyncio.to_thread(_prepare, AdminClient({"bootstrap.servers": broker.bootstrap, **ADMIN}))
        password = tmp_path / "password"
        password.write_text("secret\n")
        made = KafkaSettings(
            bootstrap=broker.bootstrap, protocol="SASL_PLAINTEXT", sasl_username="ingest", sasl_password_file=password
        )
        await until(lambda: _granted(made))
        yield made
    finally:
        await asyncio.to_thread(broker.stop)
        shutil.rmtree(folder, ignore_errors=True)


def _prepare(client: AdminClient) -> None:
    for future in client.create_topics([NewTopic(CURSORS, 12, 1), NewTopic(NASA, 1, 1), NewTopic(ESA, 1, 1)]).values():
        future.result(10)
    topic, write, see, read = ResourceType.TOPIC, AclOperation.WRITE, AclOperation.DESCRIBE, AclOperation.READ
    grants = [(topic, "flux-internal.", each) for each in (write, see, read)]
    grants += [(topic, "flux.nasa.", write), (topic, "flux.nasa.", see), (topic, "flux.esa.", see)]
    grants += [(ResourceType.TRANSACTIONAL_ID, "flux-internal.relay.ingest.", each) for each in (write, see)]
    grants += [(ResourceType.GROUP, "lanes", read)]
    bindings = [
        AclBinding(kind, name, ResourcePatternType.PREFIXED, "User:ingest", "*", operation, AclPermissionType.ALLOW)
        for kind, name, operation in grants
    ]
    for future in client.create_acls(bindings).values():
        future.result(10)


async def _granted(settings: KafkaSettings) -> bool:
    """Tell whether the grants have reached the authorizer, which lags behind their creation."""
    sender, follower = IdempotentPublisher(settings), TopicFollower(settings, [CURSORS, NASA, ESA])
    try:
        await sender.open()
        await follower.open()
    except Unavailable:
        return False
    finally:
        await sender.close()
        await follower.close()
    return True


def event(topic: str) -> Outgoing:
    """Return an event."""
    return Outgoing(topic, "k", "id", [], b"v", "nasa")


async def test_a_forbidden_topic_is_said_of_its_event(settings: KafkaSettings) -> None:
    """The relay learns which row may not be written, visible topic or not; without it the transaction is committed."""
    transport = TransactionalPublisher(settings, "ingest", 0, SystemClock())
    told = []
    for forbidden in (ESA, "flux.jaxa.run.decisions.v1"):
        await transport.open()
        with pytest.raises(PublishRefused) as refused:
            await transport.publish([event(NASA), event(forbidden), event(NASA)], 3)
        told.append((refused.value.index, refused.value.code))
    await transport.open()
    await transport.publish([event(NASA), event(NASA)], 2)
    cursor = await transport.open()
    await transport.close()

    assert told == [(1, Code.TOPIC_MISSING), (1, Code.TOPIC_MISSING)]
    assert cursor == 2


async def test_a_sender_learns_what_it_may_not_write(settings: KafkaSettings) -> None:
    """The refusal names the event, and the sender goes on with what it may."""
    sender = IdempotentPublisher(settings)
    with pytest.raises(PublishRefused) as refused:
        await sender.send([event(NASA), event(ESA)])
    await sender.send([event(NASA)])
    await sender.close()

    assert (refused.value.index, refused.value.code) == (1, Code.TOPIC_MISSING)


async def test_a_follower_without_the_right_to_read_is_told(settings: KafkaSettings) -> None:
    """What may be read is read; what may only be seen is an outage, not silence."""
    allowed, forbidden = TopicFollower(settings, [CURSORS]), TopicFollower(settings, [NASA])
    await allowed.open()
    found = [records async for records in allowed.to_end()]
    await allowed.close()
    await forbidden.open()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(anext(forbidden.follow()), 20)
    await forbidden.close()

    assert found == []


async def test_a_topic_that_may_not_be_read_hurts_no_other_lane(
    settings: KafkaSettings, store: Any, running: Any, until: Callable[..., Any]
) -> None:
    """The group is assigned both topics; the one that may only be seen is left and tried again, the other is read."""
    sender = IdempotentPublisher(settings)
    async with running("|".join((CURSORS, NASA)).replace(".", r"\.")) as loop:
        for _ in range(20):
            await sender.send([event(NASA), event(CURSORS)])
            await asyncio.sleep(0.05)

        async def applied() -> bool:
            return bool(await store.pool.fetchval("SELECT count(*) = 20 FROM effects"))

        await until(applied)
        lanes = {lane.tp.topic for lane in loop.lanes()}
    await sender.close()

    assert lanes >= {CURSORS}
    assert await store.pool.fetchval("SELECT count(DISTINCT topic) FROM effects") == 1
