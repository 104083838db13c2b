"""Health: what each probe answers, and that it says why."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from flux_common.kernel.clock import FixedClock
from flux_common.runtime.health import ASSEMBLED, EVENT_LOOP, Health


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def health(clock: FixedClock) -> Health:
    return Health("ingest", clock, stall_s=10)


def test_nothing_is_ready_before_it_is_assembled(health: Health) -> None:
    """A fresh process is alive, not started and not ready, and says so."""
    assert (health.livez().status, health.startupz().status, health.readyz().status) == (200, 503, 503)
    assert list(health.readyz().body["why"]) == [ASSEMBLED]


def test_started_is_for_good_and_ready_is_not(health: Health) -> None:
    """A condition that fails later makes the process unready, never unstarted."""
    health.require("kafka")
    health.ok(ASSEMBLED)
    before = health.startupz().body
    health.ok("kafka")
    health.fail("kafka", "BROKER_UNAVAILABLE: no answer")

    assert before["why"] == {"kafka": "not reached yet"}
    assert (health.started, health.ready) == (True, False)
    assert health.startupz().status == 200
    assert health.readyz().body == {
        "service": "ingest",
        "status": "not ready",
        "why": {"kafka": "BROKER_UNAVAILABLE: no answer"},
    }


def test_a_condition_that_fails_first_still_has_to_be_met(health: Health) -> None:
    """A dependency that was never there does not count as met once."""
    health.ok(ASSEMBLED)
    health.fail("lanes", "lane x/0 is not taken")

    assert health.started is False


def test_requiring_again_does_not_undo(health: Health) -> None:
    """`require` names a condition; only `fail` breaks it."""
    health.ok("kafka")
    health.require("kafka")
    health.ok(ASSEMBLED)

    assert health.ready is True


def test_draining_ends_readiness_at_once(health: Health) -> None:
    """A process that was told to stop is not ready whatever else holds."""
    health.ok(ASSEMBLED)
    health.drain()

    assert (health.readyz().status, health.startupz().status) == (503, 200)


def test_a_silent_loop_is_named(health: Health, clock: FixedClock) -> None:
    """/livez fails just above the legal gap, and says which loop is silent and for how long."""
    health.tick(EVENT_LOOP)
    health.tick("lanes")
    clock.ticks = 10.0
    at_the_limit = health.livez().ok
    clock.ticks = 10.1
    health.tick(EVENT_LOOP)

    assert at_the_limit is True
    assert health.livez().body["why"] == {"lanes": "no tick for 10.1 s; at most 10 s are legal"}


def test_an_ended_loop_is_not_missed(health: Health, clock: FixedClock) -> None:
    """A loop that was forgotten, or that ends while draining, does not make the process look dead."""
    health.tick("lanes")
    health.tick("relay")
    clock.ticks = 60.0
    health.forget("lanes")
    before = health.livez().body["why"]
    health.drain()

    assert list(before) == ["relay"]
    assert health.livez().ok is True


def test_a_blocked_event_loop_shows_while_draining(health: Health, clock: FixedClock) -> None:
    """Draining excuses loops, not a blocked process."""
    health.tick(EVENT_LOOP)
    health.drain()
    clock.ticks = 11.0

    assert health.livez().ok is False
