"""One relay a shard: the lease says who, its term and Kafka's fencing see to it, and a hand-over loses nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flux_common.kafka.names import Names
from flux_common.kafka.producing import discard, new_producer, send_all
from flux_common.kernel.errors import Fenced, Unavailable
from flux_common.postgres import relay as room

TERM = "SELECT term FROM relay_leases WHERE shard = $1"
HOLDER = "SELECT holder FROM relay_leases WHERE shard = $1 AND expires_at > now()"
EXPIRE = "UPDATE relay_leases SET expires_at = now() - interval '1 s' WHERE shard = $1"


class Standing:
    """The real transport, whose `stop_at` (open or publish) stands still until told to go on."""

    def __init__(self, real: Any, stop_at: str) -> None:
        self.real, self.stop_at = real, stop_at
        self.reached, self.go_on, self.raised = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.close = real.close

    async def open(self) -> Any:
        if self.stop_at == "open":
            await self._stand()
        return await self.real.open()

    async def publish(self, events: Any, cursor: int) -> None:
        if self.stop_at == "publish":
            await self._stand()
        try:
            await self.real.publish(events, cursor)
        except Exception:
            self.raised.set()
            raise

    async def _stand(self) -> None:
        self.reached.set()
        await self.go_on.wait()
        self.stop_at = "never"


@pytest.fixture(params=["open", "publish"])
def standing(request: pytest.FixtureRequest, bench: Any) -> Standing:
    """A transport that stands still at either step."""
    return Standing(bench.transport(), request.param)


async def test_a_holder_that_stood_still_is_fenced(
    bench: Any, create_topic: Any, until: Any, standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease ran out while it stood before Kafka, another took over and published: it publishes nothing any more."""
    monkeypatch.setattr(room, "RENEW_SECONDS", 60)  # it does stand still
    topic = await create_topic("t")
    await bench.write(*(bench.event(topic, n) for n in range(5)))
    transports = iter([standing, *(bench.transport() for _ in range(20))])
    bench.start(lambda: next(transports), holder="old")
    await standing.reached.wait()
    await bench.one(EXPIRE, bench.shard)
    bench.start(holder="new")
    await until(bench.empty)
    standing.go_on.set()
    await bench.write(*(bench.event(topic, n) for n in range(5, 10)))
    await until(bench.empty)
    await bench.stop()

    assert await bench.published(topic) == list(range(10))
    assert await bench.lease() == (10, 10)


async def test_a_slow_broker_does_not_cost_the_lease(
    bench: Any, create_topic: Any, until: Any, standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a holder waits for Kafka it renews: nobody takes over, so two processes cannot fence each other for ever."""
    monkeypatch.setattr(room, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(room, "LEASE_SECONDS", 0.5)
    topic = await create_topic("t")
    await bench.write(bench.event(topic, 1))
    bench.start(lambda: standing, holder="slow")
    await standing.reached.wait()
    term = await bench.one(TERM, bench.shard)
    bench.start(holder="other")
    await asyncio.sleep(2.5)  # five leases
    held = (await bench.one(HOLDER, bench.shard), await bench.one(TERM, bench.shard))
    standing.go_on.set()
    await until(bench.empty)
    await bench.stop()

    assert held == ("slow", term)
    assert await bench.published(topic) == [1]


async def test_a_lease_that_is_anothers_ends_the_wait_for_kafka(
    bench: Any, create_topic: Any, until: Any, standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finds at a renewal that the term has moved on lets go of Kafka at once."""
    monkeypatch.setattr(room, "RENEW_SECONDS", 0.1)
    topic = await create_topic("t")
    await bench.write(bench.event(topic, 1))
    transports = iter([standing, *(bench.transport() for _ in range(20))])
    bench.start(lambda: next(transports), holder="old")
    await standing.reached.wait()
    await bench.one(
        "UPDATE relay_leases SET term = term + 1, holder = 'x', expires_at = now() WHERE shard = $1", bench.shard
    )
    await until(bench.empty)  # without standing.go_on: it began anew
    await bench.stop()

    assert not standing.go_on.is_set()
    assert await bench.published(topic) == [1]


async def test_a_relay_that_stops_gives_its_lease_back(bench: Any, until: Any) -> None:
    """A successor need not wait for it to run out; its term is a new one."""
    bench.start(holder="first")
    await until(lambda: bench.one(HOLDER, bench.shard))
    await bench.stop()
    given_back = await bench.one(HOLDER, bench.shard)
    bench.start(holder="second")
    await until(lambda: bench.one(HOLDER, bench.shard))
    await bench.stop()

    assert given_back is None
    assert await bench.one(TERM, bench.shard) == 2


async def test_two_relays_at_once_are_one(bench: Any, create_topic: Any, until: Any) -> None:
    """Two processes want the shard while rows come in: one publishes, the other waits, nothing is sent twice."""
    topic = await create_topic("t")
    for holder in ("one", "two"):
        bench.start(holder=holder)
    for number in range(0, 60, 3):
        await bench.write(*(bench.event(topic, n) for n in range(number, number + 3)))
    await until(bench.empty)
    term = await bench.one(TERM, bench.shard)
    await bench.stop()

    assert await bench.published(topic) == list(range(60))
    assert term == 1


async def test_a_producer_that_is_fenced_between_two_sends_says_so(bench: Any, create_topic: Any, kafka: Any) -> None:
    """The client then refuses the next send in words of its own: that is no reason for a process to end."""
    topic = await create_topic("t")
    old, new = (new_producer(kafka, transactional_id=kafka.topic("same")) for _ in range(2))
    await old.start()
    await new.start()
    try:
        await old.begin_transaction()
        for number in range(2):
            with pytest.raises((Fenced, Unavailable)):
                await send_all(old, Names(kafka.topic_prefix), [bench.event(topic, number)])
    finally:
        await discard(old)
        await discard(new)

    assert await bench.published(topic) == []
