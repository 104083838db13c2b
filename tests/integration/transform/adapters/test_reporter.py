"""Reports as checkpoint receives them, on a real Kafka: read back with checkpoint's own reader of records."""

from __future__ import annotations

from uuid import UUID

import pytest

from flux_common.contracts import catalogue, progress
from flux_common.contracts.envelope import read_body, read_envelope
from flux_common.kafka.admin import create_topics
from flux_common.kafka.follow import TopicFollower
from flux_common.kafka.publisher import IdempotentPublisher
from flux_common.kernel.clock import SystemClock
from flux_common.kernel.errors import Unavailable
from flux_common.kernel.ids import murmur2, progress_id
from flux_common.kernel.positions import Received
from flux_common.settings import KafkaSettings
from flux_transform.adapters.reporter import ProgressReporter
from flux_transform.domain.failures import WorkFailed
from flux_transform.domain.items import Item, Job, Outcome, PlanSummary
from flux_transform.ports import Failure

RUN = str(UUID(int=7))
ITEM = Item("nasa", RUN, "r-1", 1, "extract", 4, 3, Job("file:///a/", "file:///b/", "text", "research"))
HEAD = "ab" * 32


async def reported(settings: KafkaSettings) -> list[Received]:
    """Send one report of each kind and return the records as they stand on the topic."""
    publisher = IdempotentPublisher(settings)
    reporter = ProgressReporter(publisher, "worker-1", "v1", SystemClock())
    plan_step = Item("nasa", RUN, "r-1", 1, "plan", 0, 1, ITEM.job)
    await reporter.planned(plan_step, PlanSummary(HEAD, 10, 99, (6, 4)))
    await reporter.started(ITEM)
    await reporter.alive(ITEM)
    await reporter.alive(ITEM)
    await reporter.sliced(ITEM, 5, b'{"any":"bytes"}')
    await reporter.finished(ITEM, Outcome(last_seq=5, head=HEAD))
    await reporter.failed(ITEM, Failure("SOURCE_UNAVAILABLE", "infrastructure", True, 5, HEAD))
    await publisher.close()
    follower = TopicFollower(settings, [catalogue.PROGRESS.name])
    await follower.open()
    found = [record async for records in follower.to_end() for record in records]
    await follower.close()
    return found


async def test_each_report_is_the_event_that_its_contract_says(kafka_bootstrap: str, topic_prefix: str) -> None:
    """All on the run's one lane, in order, under derived ids, stamped by the broker, with term and seq as headers."""
    settings = KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix)
    await create_topics(settings, [], development=True)
    records = await reported(settings)
    envelopes = [read_envelope(record) for record in records]
    types = [envelope.type.split(".")[2] for envelope in envelopes]

    assert types == ["planned", "started", "alive", "alive", "sliced", "finished", "failed"]
    lane = murmur2(RUN.encode()) % catalogue.PROGRESS.kafka_partitions
    assert {record.position.tp.kafka_partition for record in records} == {lane}
    assert all(record.appended_at is not None and record.key == RUN.encode() for record in records)
    assert len({envelope.id for envelope in envelopes}) == len(records)
    assert envelopes[1].id == str(progress_id(catalogue.STARTED.ce_type, RUN, "extract", 4, 3, None))
    assert {envelope.subject for envelope in envelopes[1:]} == {f"{RUN}/extract/4"}
    assert records[4].value == b'{"any":"bytes"}'
    assert envelopes[4].extensions == {"ce_fluxterm": "3", "ce_fluxseq": "5"}


async def test_bodies_are_read_by_their_models(kafka_bootstrap: str, topic_prefix: str) -> None:
    """What was meant is what arrives."""
    settings = KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix)
    await create_topics(settings, [], development=True)
    records = await reported(settings)
    planned = read_body(catalogue.PLANNED, records[0].value)
    beats = [read_body(catalogue.ALIVE, record.value).counter for record in records[2:4]]
    finished = read_body(catalogue.FINISHED, records[5].value)
    failed = read_body(catalogue.FAILED, records[6].value)

    assert isinstance(planned, progress.Planned)
    assert (planned.plan_digest, planned.objects, planned.partitions) == (HEAD, 10, [6, 4])
    assert beats == [1, 2]
    assert (finished.last_seq, finished.head) == (5, HEAD)
    assert (failed.code, failed.cause, failed.transient) == ("SOURCE_UNAVAILABLE", "infrastructure", True)


async def test_a_report_that_the_broker_will_never_take_is_the_items_failure(
    kafka_bootstrap: str, topic_prefix: str
) -> None:
    """To wait would be to wait for ever; but for a missing topic an item waits, and other reports are taken."""
    settings = KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix, request_timeout_ms=2000)
    publisher = IdempotentPublisher(settings)
    reporter = ProgressReporter(publisher, "worker-1", "v1", SystemClock())
    with pytest.raises(Unavailable) as missing:
        await reporter.started(ITEM)
    await create_topics(settings, [], development=True)
    with pytest.raises(WorkFailed) as failed:
        await reporter.sliced(ITEM, 1, b"x" * 3_000_000)
    await reporter.failed(ITEM, Failure(failed.value.code, failed.value.cause, failed.value.transient))
    await publisher.close()

    assert not isinstance(missing.value, WorkFailed)
    assert (failed.value.code, failed.value.cause, failed.value.transient) == ("WORKER_FAILED", "transform", False)
