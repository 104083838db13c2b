"""Waiting: what is waited for, what is not, and what is said meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from flux_common.kernel.clock import FixedClock
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import FluxError, InvariantBroken, Unavailable
from flux_common.runtime.health import ASSEMBLED, Health
from flux_common.runtime.retry import Backoff
from flux_common.runtime.waiting import SAID_AGAIN_EVERY, ask, wait_for


@pytest.fixture
def health() -> Health:
    found = Health("ingest", FixedClock(datetime(2026, 1, 1, tzinfo=UTC)), stall_s=10)
    found.ok(ASSEMBLED)
    return found


def _instant() -> Backoff:
    return Backoff(0.0, 0.0)


async def test_a_probe_is_tried_until_it_finds(health: Health) -> None:
    """The probe's find is returned, and only then the process is ready."""
    tries: list[bool] = []

    async def probe() -> str:
        tries.append(health.ready)
        if len(tries) < 4:
            raise Unavailable("DATABASE_UNAVAILABLE", "no answer")
        return "schema 7"

    found = await wait_for(health, "postgres", probe, _instant())

    assert (found, tries, health.ready) == ("schema 7", [False] * 4, True)


@pytest.mark.parametrize("fault", [InvariantBroken("FORK", "two heads"), KeyError("x"), FluxError("X", "y")])
async def test_a_fault_that_no_waiting_mends_is_raised(health: Health, fault: Exception) -> None:
    """Only what can appear is waited for; anything else ends the start."""

    async def probe() -> None:
        raise fault

    with pytest.raises(type(fault)):
        await wait_for(health, "postgres", probe, _instant())


async def test_the_reason_is_said_once_until_it_changes(health: Health) -> None:
    """The log names the dependency and the reason, and is not flooded by the same one."""
    reasons: list[Callable[[], Exception]] = [
        *[lambda: ConnectionRefusedError("refused")] * 3,
        *[lambda: TimeoutError()] * SAID_AGAIN_EVERY,
    ]

    async def probe() -> None:
        if reasons:
            raise reasons.pop(0)()

    with capture_logs() as lines:
        await wait_for(health, "kafka", probe, _instant())

    assert [(line["event"], line.get("why"), line["tries"]) for line in lines] == [
        ("waiting", "ConnectionRefusedError: refused", 1),
        ("waiting", "TimeoutError", 4),
        ("waiting", "TimeoutError", SAID_AGAIN_EVERY),
        ("dependency is there", None, 16),
    ]
    assert {line["dependency"] for line in lines} == {"kafka"}


async def test_what_is_asked_again_and_again_is_said_to_the_probes(health: Health) -> None:
    """An answer is readiness, no answer a reason; the dependency was there once, so the process stays started."""

    async def answers() -> None:
        return None

    async def does_not() -> None:
        raise Unavailable(Code.BROKER_UNAVAILABLE, "Kafka refused a question (_TIMED_OUT)")

    await ask(health, "kafka", answers())
    there = health.ready
    await ask(health, "kafka", does_not())

    assert (there, health.started) == (True, True)
    assert health.readyz().body["why"] == {"kafka": "BROKER_UNAVAILABLE: Kafka refused a question (_TIMED_OUT)"}
