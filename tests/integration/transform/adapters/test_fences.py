"""The fences topic as a worker knows it, on a real Kafka."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from aiokafka import AIOKafkaProducer

from flux_common.contracts import catalogue
from flux_common.contracts.envelope import Outgoing, body_bytes
from flux_common.contracts.work import WorkFenced
from flux_common.kafka.admin import create_topics
from flux_common.kafka.publisher import IdempotentPublisher
from flux_common.kernel.positions import Received, TopicPartition
from flux_common.settings import KafkaSettings
from flux_transform.adapters import fences
from flux_transform.adapters.fences import HeardFences
from flux_transform.domain.items import Item, Job

RUN = str(UUID(int=1))
OTHER = str(UUID(int=2))
PLACE = TopicPartition(catalogue.FENCES.name, 0)


def an_item(*, run: str = RUN, number: int = 0, term: int = 1, run_attempt: int = 1) -> Item:
    job = Job("file:///a/", "file:///b/", "text", "research")
    return Item("nasa", run, "r-1", run_attempt, "extract", number, term, job)


def a_fence(**named: object) -> bytes:
    return body_bytes(WorkFenced.model_validate({"agency_id": "nasa", "run_id": RUN} | named))


def heard(*fences: bytes | None) -> HeardFences:
    known = HeardFences()
    known.hear([Received(PLACE.at(offset), None, value) for offset, value in enumerate(fences)])
    return known


def test_a_fence_of_an_item_drops_older_terms_of_that_item_alone() -> None:
    """Terms below `term_min` are dropped; the current one, and other items, go on."""
    known = heard(a_fence(kind="extract", number=0, term_min=3))

    assert [known.fenced(an_item(term=term)) for term in (1, 2, 3, 4)] == [True, True, False, False]
    assert not known.fenced(an_item(number=1))


def test_a_fence_of_a_run_drops_older_attempts_of_that_run_alone() -> None:
    """Items of attempts below `run_attempt_min` are dropped."""
    known = heard(a_fence(run_attempt_min=2))

    assert [known.fenced(an_item(run_attempt=attempt)) for attempt in (1, 2)] == [True, False]
    assert not known.fenced(an_item(run=OTHER))


def test_the_greatest_fence_counts_whatever_comes_after_it() -> None:
    """A fence heard twice, or an older one heard late, changes nothing; what cannot be read neither."""
    known = heard(
        a_fence(kind="extract", number=0, term_min=5),
        a_fence(kind="extract", number=0, term_min=2),
        b"\xff",
        None,
    )

    assert known.fenced(an_item(term=4))
    assert not known.fenced(an_item(term=5))


async def test_what_is_on_the_topic_is_known_before_ready_and_what_follows_is_heard(
    kafka_bootstrap: str, topic_prefix: str
) -> None:
    """`ready` is set once the topic was read to its end; later fences are heard; `stopping` ends it at once."""
    settings = KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix)
    await create_topics(settings, [], development=True)
    publisher, known, stopping = IdempotentPublisher(settings), HeardFences(), asyncio.Event()

    async def publish(value: bytes) -> None:
        await publisher.send([Outgoing(catalogue.FENCES.name, RUN, RUN, [], value, "nasa")])

    await publish(a_fence(kind="extract", number=0, term_min=2))
    following = asyncio.create_task(known.follow(settings, stopping))
    async with asyncio.timeout(30):
        await known.ready.wait()
        before = known.fenced(an_item(term=1))
        await publish(a_fence(run_attempt_min=2))
        while not known.fenced(an_item(term=2)):  # noqa: ASYNC110 - what is waited for is a fact, and has no event
            await asyncio.sleep(0.05)
        stopping.set()
        await following
    await publisher.close()

    assert before


async def test_who_waits_for_the_end_of_the_topic_stops_though_it_never_comes(
    kafka_bootstrap: str, topic_prefix: str
) -> None:
    """A transaction that is open at the end keeps the fences from being known, and nobody from stopping."""
    settings = KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix)
    await create_topics(settings, [], development=True)
    writer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, transactional_id=settings.topic("fences"))
    await writer.start()
    await writer.begin_transaction()
    await writer.send_and_wait(settings.topic(catalogue.FENCES.name), a_fence(run_attempt_min=2), key=b"k")
    known, stopping = HeardFences(), asyncio.Event()
    following = asyncio.create_task(known.follow(settings, stopping))
    await asyncio.sleep(1.0)
    stopping.set()
    async with asyncio.timeout(15):
        await following
    await writer.abort_transaction()
    await writer.stop()

    assert not known.ready.is_set()


def test_the_fences_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest heard are forgotten; checkpoint fences the reports of such items itself."""
    monkeypatch.setattr(fences, "REMEMBERED_MAX", 2)
    known = heard(*(a_fence(kind="extract", number=number, term_min=2) for number in range(3)))

    assert [known.fenced(an_item(number=number)) for number in range(3)] == [False, True, True]
