"""A broker with logins and ACLs: clients of this room log in, and what is forbidden is said of the event it concerns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from flux_common.contracts.envelope import Outgoing
from flux_common.kafka.errors import PublishRefused
from flux_common.kafka.follow import TopicFollower
from flux_common.kafka.logins import Difference, Rule, apply
from flux_common.kafka.publisher import IdempotentPublisher, TransactionalPublisher
from flux_common.kernel.clock import SystemClock
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Unavailable
from flux_common.settings import KafkaSettings
from flux_devkit.secured import SecuredKafka

LOGIN = "some-service"
CURSORS = "flux-internal.relay-cursors.v1"
NASA, ESA = "flux.nasa.run.decisions.v1", "flux.esa.run.decisions.v1"
GRANTS = (
    *(("TOPIC", "flux-internal.", does) for does in ("WRITE", "READ")),
    ("TOPIC", "flux.nasa.", "WRITE"),
    ("TOPIC", "flux.esa.", "DESCRIBE"),
    ("TRANSACTIONAL_ID", "flux-internal.relay.ingest.", "WRITE"),
    ("GROUP", "lanes", "READ"),
)


@pytest.fixture
async def settings(secured_kafka: SecuredKafka, topic_prefix: str, until: Callable[..., Any]) -> KafkaSettings:
    """Settings of a login that may write what is internal and nasa's, and only see what is esa's."""
    admin = secured_kafka.settings(topic_prefix=topic_prefix)
    await asyncio.to_thread(_create, admin, {CURSORS: 12, NASA: 1, ESA: 1})
    rules = [Rule(LOGIN, kind, "PREFIXED", admin.topic(name), does) for kind, name, does in GRANTS]
    await apply(admin, Difference(rules, [], {}, []))
    await secured_kafka.make_logins([LOGIN])
    made = secured_kafka.settings(LOGIN, topic_prefix)
    await until(lambda: _granted(made))
    return made


def _create(admin: KafkaSettings, topics: dict[str, int]) -> None:
    client: Any = AdminClient(admin.confluent_options(), logger=logging.getLogger(__name__))
    for future in client.create_topics([NewTopic(admin.topic(name), n, 1) for name, n in topics.items()]).values():
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
