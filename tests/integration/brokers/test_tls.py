"""Brokers behind TLS: every kind of client works with the authority's certificate, and none without it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from flux_common.contracts.access import principals
from flux_common.contracts.catalogue import DECISIONS, REQUESTS
from flux_common.contracts.envelope import Outgoing
from flux_common.kafka.admin import Admin, create_topics
from flux_common.kafka.follow import TopicFollower
from flux_common.kafka.logins import apply, difference
from flux_common.kafka.publisher import IdempotentPublisher, TransactionalPublisher
from flux_common.kernel.clock import SystemClock
from flux_common.kernel.errors import Unavailable
from flux_common.runtime.waiting import kafka_answers
from flux_common.settings import KafkaSettings
from flux_devkit.home import Home
from flux_devkit.secured import SecuredKafka, make_certificate
from flux_devkit.sessions import TestSession


@pytest.fixture(scope="module")
def tls_kafka(flux_home: Home, flux_session: TestSession) -> Iterator[SecuredKafka]:
    """A broker that speaks SASL over TLS alone, with the topics of one agency and everybody's access."""
    folder = flux_session.folder / "data" / f"tls-{secrets.token_hex(4)}"
    with SecuredKafka(flux_home, folder, "SASL_SSL", hold=flux_session.place.hold) as kafka:
        asyncio.run(_prepare(kafka))
        yield kafka


async def _prepare(kafka: SecuredKafka) -> None:
    everybody = principals({"nasa": None})
    await create_topics(kafka.settings(), ["nasa"], development=True)
    await apply(kafka.settings(), await difference(kafka.settings(), everybody))
    await kafka.make_logins(["flux.nasa", "flux-ingest"])


def event(topic: str) -> Outgoing:
    """Return an event."""
    return Outgoing(topic, "k", "id", [], b"v", "nasa")


async def first_value(settings: KafkaSettings, topic: str) -> bytes | None:
    """Return the value of the first record of a topic, once it is there."""
    follower = TopicFollower(settings, [topic])
    await follower.open()
    try:
        async with asyncio.timeout(20):
            async for records in follower.follow():
                if records:
                    return records[0].value
    finally:
        await follower.close()
    return None


async def test_every_kind_of_client_speaks_tls(tls_kafka: SecuredKafka) -> None:
    """The relay's transaction, a producer's send, a follower's reading, and both admin clients (quotas are aiokafka's)."""
    agency, ingest = tls_kafka.settings("flux.nasa"), tls_kafka.settings("flux-ingest")
    requests, decisions = REQUESTS.of("nasa"), DECISIONS.of("nasa")
    relay, sender = TransactionalPublisher(ingest, "ingest", 0, SystemClock()), IdempotentPublisher(agency)
    await relay.open()
    await relay.publish([event(decisions)], 1)
    await relay.close()
    await sender.send([event(requests)])
    await sender.close()

    assert await first_value(agency, decisions) == b"v"
    assert await first_value(ingest, requests) == b"v"
    assert set(await Admin.of(agency).describe([requests])) == {requests}
    found = await difference(tls_kafka.settings(), principals({"nasa": None}))
    assert (found.missing, found.quotas) == ([], {})


@pytest.mark.parametrize("change", ["authority", "protocol", "password"])
async def test_who_cannot_prove_the_broker_or_himself_gets_no_answer(
    tls_kafka: SecuredKafka, tmp_path: Path, change: str
) -> None:
    """Another authority's certificate, no TLS at all, a wrong password: refused by both clients, and said as an outage."""
    (tmp_path / "wrong").write_text("wrong")
    changes = {
        "authority": {"ca_file": make_certificate(tmp_path, "somebody else").authority},
        "protocol": {"protocol": "SASL_PLAINTEXT"},
        "password": {"sasl_password_file": tmp_path / "wrong"},
    }
    settings = tls_kafka.settings("flux.nasa").model_copy(update=changes[change] | {"request_timeout_ms": 2_000})

    with pytest.raises(Unavailable):
        await kafka_answers(settings)()
    with pytest.raises(Unavailable):
        await Admin(settings, answer_seconds=2).describe([REQUESTS.of("nasa")])
