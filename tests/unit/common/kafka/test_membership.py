"""Membership: joined once there is an assignment, through rebalances that end, and not through one that does not."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import pytest

from flux_common.kafka.membership import Membership, Polls
from flux_common.kernel.clock import FixedClock


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def membership(clock: FixedClock) -> Membership:
    return Membership(clock, patience_s=60)


def test_it_is_no_member_before_the_first_assignment(membership: Membership, clock: FixedClock) -> None:
    """The client calls its listener for what is revoked before it first joins: nothing was."""
    membership.revoked()
    clock.ticks += 1

    assert (membership.rebalancing, membership.joined) == (True, False)


def test_a_rebalance_is_a_members_life(membership: Membership, clock: FixedClock) -> None:
    """Revoked and assigned again: a member all the time."""
    membership.assigned()
    seen = [membership.joined]
    membership.revoked()
    clock.ticks += 59
    seen.append(membership.joined)
    membership.assigned()

    assert [*seen, membership.joined] == [True, True, True]


def test_one_that_does_not_end_is_none(membership: Membership, clock: FixedClock) -> None:
    """However often the client says meanwhile that everything is revoked."""
    membership.assigned()
    membership.revoked()
    clock.ticks += 40
    membership.revoked()
    clock.ticks += 20

    assert (membership.rebalancing, membership.joined) == (True, False)


@pytest.fixture
def polls(clock: FixedClock, membership: Membership) -> Polls:
    return Polls(clock, membership, legal_s=60)


def test_a_loop_lives_while_it_polls(polls: Polls, membership: Membership, clock: FixedClock) -> None:
    """Whether its polls bring something or fail."""
    membership.assigned()
    seen = []
    for _ in range(3):
        clock.ticks += 59
        seen.append(polls.alive)
        with suppress(OSError), polls.poll():
            raise OSError

    assert seen == [True, True, True]


@pytest.mark.parametrize(("rebalancing", "alive"), [(True, True), (False, False)])
def test_a_poll_may_last_as_long_as_a_rebalance(
    polls: Polls, membership: Membership, clock: FixedClock, *, rebalancing: bool, alive: bool
) -> None:
    """And no longer than is legal without one."""
    membership.assigned()
    with polls.poll():
        if rebalancing:
            membership.revoked()
        clock.ticks += 3600
        seen = polls.alive

    assert seen == alive


@pytest.mark.parametrize("rebalancing", [True, False])
def test_a_loop_that_stands_still_between_polls_is_not_excused(
    polls: Polls, membership: Membership, clock: FixedClock, *, rebalancing: bool
) -> None:
    """The client gives its assignment back then, by itself."""
    membership.assigned()
    if rebalancing:
        membership.revoked()
    clock.ticks += 60

    assert not polls.alive
