"""The topics job on a real Kafka: creates what the catalogue names, once, and tells what differs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from flux_common.contracts.catalogue import PROGRESS, TOPICS, topic_names
from flux_common.kafka.admin import Admin, create_topics, topic_facts, wait_for_topics
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Unavailable
from flux_common.kernel.positions import TopicPartition
from flux_common.settings import KafkaSettings

AGENCIES = ["nasa", "national-archives"]
NAMES = sorted(name for spec in TOPICS for name in topic_names(spec, AGENCIES))


async def test_creates_every_topic_once_even_when_run_twice_at_once(settings: KafkaSettings) -> None:
    """Two jobs at once and one more: every topic of the catalogue exists, created once, without difference."""
    first, second = await asyncio.gather(
        create_topics(settings, AGENCIES, development=True), create_topics(settings, AGENCIES, development=True)
    )
    third = await create_topics(settings, AGENCIES, development=True)

    assert sorted(first.created + second.created) == NAMES
    assert third.created == []
    assert sorted(third.ids) == NAMES
    assert first.ids == second.ids == third.ids
    assert len(set(third.ids.values())) == len(NAMES)
    assert third.drift == []


async def test_reports_what_differs_and_changes_nothing(settings: KafkaSettings, create_topic: Any) -> None:
    """A topic with other Kafka partitions or settings is named with both values, and left as it is."""
    await create_topic(PROGRESS.name, 2, retention_ms="1000")
    report = await create_topics(settings, ["nasa"], development=True)
    again = await create_topics(settings, ["nasa"], development=True)
    facts = await topic_facts(settings, [PROGRESS.name])

    assert report.drift == again.drift
    assert f"{PROGRESS.name}: 2 Kafka partitions, not {PROGRESS.kafka_partitions}" in report.drift
    assert f"{PROGRESS.name}: retention.ms is 1000, not {PROGRESS.retention_ms}" in report.drift
    assert all(line.startswith(PROGRESS.name) for line in report.drift)
    assert facts[PROGRESS.name].kafka_partitions == 2


async def test_a_changed_setting_is_seen(settings: KafkaSettings, until: Any) -> None:
    """A setting that somebody altered later is reported by the next job."""
    await create_topics(settings, ["nasa"], development=True)
    client = AdminClient({"bootstrap.servers": settings.bootstrap})
    entry = ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, settings.topic(PROGRESS.name), incremental_configs=[entry])
    for future in client.incremental_alter_configs([resource]).values():
        await asyncio.to_thread(future.result, 10)

    async def drift() -> list[str]:
        return (await create_topics(settings, ["nasa"], development=True)).drift

    assert await until(drift) == [f"{PROGRESS.name}: cleanup.policy is compact, not delete"]


async def test_missing_topics_are_named(settings: KafkaSettings) -> None:
    """Waiting for a topic that never comes ends with its name and what to do."""
    with pytest.raises(Unavailable, match=r"absent; run the topics job") as problem:
        await wait_for_topics(settings, ["absent"], timeout=0.3)

    assert problem.value.code == Code.TOPIC_MISSING


async def test_a_topic_made_anew_has_another_id(settings: KafkaSettings, create_topic: Any) -> None:
    """The id tells a topic from its successor of the same name; log ends include uncommitted records."""
    await create_topic("t")
    admin, tp = Admin(settings), TopicPartition("t", 0)
    before = (await admin.logs([tp]))[tp]
    client = AdminClient({"bootstrap.servers": settings.bootstrap})
    for future in client.delete_topics([settings.topic("t")]).values():
        await asyncio.to_thread(future.result, 10)
    await asyncio.sleep(0.5)
    await create_topic("t")
    after = (await admin.logs([tp, TopicPartition("absent", 0)]))[tp]

    assert before.topic_id != after.topic_id
    assert (after.log_start, after.log_end) == (0, 0)


async def test_no_broker_is_an_outage() -> None:
    """Nothing that answers: Unavailable, not an error of the library."""
    settings = KafkaSettings(bootstrap="127.0.0.1:1", request_timeout_ms=500)
    admin = Admin(settings, answer_seconds=1.0)
    with pytest.raises(Unavailable) as problem:
        await admin.describe(["t"])

    assert problem.value.code == Code.BROKER_UNAVAILABLE
