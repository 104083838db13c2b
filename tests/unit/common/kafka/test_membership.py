"""Membership: joined once there is an assignment, through rebalances that end, and not through one that does not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from flux_common.kafka.membership import Membership
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
