"""The signer's memory on a real Kafka: what was published is remembered, and what is no head is never signed over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from flux_audit.adapters.memory import UNKNOWN, TreeHeadMemory
from flux_audit.adapters.signer import TreeHeadSigner
from flux_audit.domain.tree_head import TreeHead, judge_memory
from flux_common.contracts.catalogue import LANE_WATERMARK, TREE_HEAD_SIGNED, TREE_HEADS
from flux_common.contracts.envelope import Outgoing, body_bytes, headers_for
from flux_common.contracts.facts import LaneWatermark, TreeHeadSigned
from flux_common.kafka.admin import create_topics
from flux_common.kafka.publisher import IdempotentPublisher
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Unavailable
from flux_common.kernel.ids import derived_id
from flux_common.settings import KafkaSettings

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def settings(kafka_bootstrap: str, topic_prefix: str) -> KafkaSettings:
    """Settings of a client of the session's Kafka, behind this test's own prefix."""
    return KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix)


@pytest.fixture
async def publisher(settings: KafkaSettings) -> AsyncIterator[IdempotentPublisher]:
    """A producer, with the topics made."""
    await create_topics(settings, [], development=True)
    opened = IdempotentPublisher(settings)
    yield opened
    await opened.close()


async def refreshed(memory: TreeHeadMemory) -> None:
    """Refresh as the service does: again, while a new topic has no leader yet."""
    for _ in range(50):
        try:
            await memory.refresh()
        except Unavailable:
            await asyncio.sleep(0.2)
        else:
            return
    raise AssertionError("the memory stays unavailable")


@pytest.fixture
async def memory(settings: KafkaSettings) -> AsyncIterator[TreeHeadMemory]:
    opened = TreeHeadMemory(settings)
    yield opened
    await opened.close()


def head(agency: str, size: int) -> TreeHead:
    return TreeHead(f"flux.example/audit/{agency}", size, bytes([size]) * 32)


def record(agency: str, value: bytes | None) -> Outgoing:
    headers = headers_for(TREE_HEAD_SIGNED, event_id=str(derived_id([agency])), source="flux/audit", at=NOW)
    return Outgoing(TREE_HEADS.name, agency, str(derived_id([agency])), headers, value or b"", agency)


def published(signer: TreeHeadSigner, agency: str, size: int, key: str | None = None) -> Outgoing:
    one = head(agency, size)
    body = TreeHeadSigned(agency_id=agency, size=size, root=one.root.hex(), tree_head=signer.sign(one))
    return record(key or agency, body_bytes(body))


async def test_the_last_head_of_each_log_is_remembered(
    publisher: IdempotentPublisher, memory: TreeHeadMemory, signer: TreeHeadSigner
) -> None:
    """The largest head counts, in whatever order heads stand; a refresh reads on; watermarks of lanes are no heads."""
    watermark = LaneWatermark(kafka_partition=1, next_offset=5, watermark="2026-01-01T00:00:00.000Z")
    lane = Outgoing(
        TREE_HEADS.name, "_lane/1", str(derived_id(["w"])),
        headers_for(LANE_WATERMARK, event_id=str(derived_id(["w"])), source="flux/audit", at=NOW),
        body_bytes(watermark), "_system",
    )  # fmt: skip
    await publisher.send(
        [published(signer, "nasa", 3), published(signer, "nasa", 2), published(signer, "_system", 9), lane]
    )
    await refreshed(memory)
    before = {agency: memory.last(agency) for agency in memory.agencies()}
    await publisher.send([published(signer, "nasa", 4)])
    await memory.refresh()

    assert before == {"nasa": head("nasa", 3), "_system": head("_system", 9)}
    assert (memory.last("nasa"), memory.last("usgs")) == (head("nasa", 4), None)


async def test_an_empty_topic_is_an_empty_memory(publisher: IdempotentPublisher, memory: TreeHeadMemory) -> None:
    """A new installation remembers nothing, and says so."""
    await refreshed(memory)

    assert (list(memory.agencies()), memory.last("nasa")) == ([], None)


async def test_what_is_no_head_of_the_log_is_one_that_nothing_extends(
    publisher: IdempotentPublisher, memory: TreeHeadMemory, signer: TreeHeadSigner
) -> None:
    """Junk, an empty value or another agency's head under an agency's key: the log is not signed over it, ever."""
    await publisher.send([record("junk", b"{}"), record("gone", None), published(signer, "nasa", 4, key="other")])
    await publisher.send([published(signer, "gone", 4)])
    await refreshed(memory)

    assert [memory.last(agency) for agency in ("junk", "gone", "other")] == [UNKNOWN] * 3
    assert judge_memory(UNKNOWN, 10**6, None) is Code.DATABASE_BEHIND_KAFKA


async def test_a_topic_that_is_not_there_is_waited_for(settings: KafkaSettings) -> None:
    """Without its topic the memory is not empty but unavailable; once the topic is there, it reads."""
    memory = TreeHeadMemory(settings)
    with pytest.raises(Unavailable):
        await memory.refresh()
    await create_topics(settings, [], development=True)
    await refreshed(memory)
    await memory.close()

    assert list(memory.agencies()) == []
