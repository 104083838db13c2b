"""Where the timer looks: at what was sealed here, at what the memory names for a lane, and no sooner than it may."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from flux_audit.domain.merkle import Frontier, append
from flux_audit.domain.signing import Cadence, Tree
from flux_audit.domain.tree_head import TreeHead
from flux_audit.handlers.unsigned import Unsigned
from flux_common.contracts.catalogue import AUDIT
from flux_common.kernel.clock import FixedClock
from flux_common.kernel.ids import fact_partition
from flux_common.kernel.positions import Lane, TopicPartition

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LANE = TopicPartition(AUDIT.name, fact_partition("nasa", AUDIT.kafka_partitions))
NEIGHBOUR = next(
    name for n in range(99) if fact_partition(name := f"agency-{n}", AUDIT.kafka_partitions) != LANE.kafka_partition
)


class Memory:
    """A memory that a test fills."""

    def __init__(self, *agencies: str) -> None:
        self.heads = {agency: TreeHead("o", 1, bytes(32)) for agency in agencies}
        self.refreshes = 0

    async def refresh(self) -> None:
        self.refreshes += 1

    def last(self, agency_id: str) -> TreeHead | None:
        return self.heads.get(agency_id)

    def agencies(self) -> list[str]:
        return list(self.heads)


def books(*heard: str) -> tuple[Unsigned, Memory, FixedClock]:
    memory, clock = Memory(*heard), FixedClock(NOW)
    unsigned = Unsigned(memory, clock, Cadence())
    asyncio.run(unsigned.prepare(lane(1)))
    return unsigned, memory, clock


def lane(epoch: int) -> Lane:
    return Lane("audit", LANE, "id", epoch, 0)


def tree(size: int, signed: int, agency: str = "nasa") -> Tree:
    return Tree(agency, append(Frontier(), [bytes(32)] * size).frontier, signed)


def test_a_take_reads_the_memory_once_and_looks_at_its_own_logs() -> None:
    """Each epoch reads once; of what the memory names, only the logs of this Kafka partition are looked at."""
    unsigned, memory, _ = books("nasa", NEIGHBOUR)
    asyncio.run(unsigned.prepare(lane(1)))
    once = memory.refreshes
    asyncio.run(unsigned.prepare(lane(2)))

    assert (once, memory.refreshes, unsigned.waiting(LANE)) == (1, 2, ["nasa"])


def test_a_log_that_the_memory_hears_of_later_is_looked_at_once() -> None:
    """What the predecessor's relay publishes after the Take is not overlooked, and not looked at for ever."""
    unsigned, memory, _ = books()
    memory.heads["nasa"] = TreeHead("o", 1, bytes(32))
    unsigned.listen(LANE)
    heard = unsigned.waiting(LANE)
    unsigned.settle(LANE, [tree(1, 1)])
    unsigned.listen(LANE)

    assert (heard, unsigned.waiting(LANE)) == (["nasa"], [])


def test_what_is_sealed_waits_until_it_is_signed_to_its_end() -> None:
    """The oldest fact's time is kept; a partly signed log waits on."""
    unsigned, _, _ = books()
    unsigned.expect(LANE, {"nasa": NOW, "usgs": None})
    unsigned.expect(LANE, {"nasa": NOW + timedelta(seconds=5), "usgs": NOW + timedelta(seconds=9)})
    oldest = unsigned.oldest(LANE)
    unsigned.settle(LANE, [tree(5, 4), tree(2, 2, "usgs")])
    partly = unsigned.waiting(LANE)
    unsigned.settle(LANE, [tree(5, 5)])

    assert (oldest, partly) == (NOW, ["nasa"])
    assert (unsigned.waiting(LANE), unsigned.oldest(LANE)) == ([], None)


def test_what_a_lane_seals_beside_the_timer_is_not_forgotten() -> None:
    """Timer and lane each settle after their own commit: the timer what it signed to the end, the lane what it sealed since."""
    unsigned, _, clock = books()
    timer, sealed = tree(5, 5), tree(6, 5)
    for order in ([timer, sealed], [sealed, timer]):
        unsigned.expect(LANE, {"nasa": NOW})  # the lane waits for the timer's locks
        unsigned.signed([timer])
        for one in order:
            unsigned.settle(LANE, [one])
        clock.ticks += 1

        assert (unsigned.waiting(LANE), unsigned.oldest(LANE)) == (["nasa"], NOW), order


def test_an_older_view_of_the_same_leaves_changes_nothing() -> None:
    """The timer signs what the lane has sealed, and its settling is first."""
    unsigned, _, _ = books()
    unsigned.expect(LANE, {"nasa": NOW})
    for one in (tree(6, 6), tree(6, 5)):
        unsigned.settle(LANE, [one])

    assert unsigned.waiting(LANE) == []


def test_a_lane_that_was_left_and_is_taken_again_waits_for_what_it_waited_for() -> None:
    """Also for a log of another Kafka partition, sealed from here; and the oldest fact's time is known still."""
    unsigned, _, _ = books()
    unsigned.expect(LANE, {"nasa": NOW, NEIGHBOUR: None})
    unsigned.keep([])
    asyncio.run(unsigned.prepare(lane(2)))

    assert (unsigned.waiting(LANE), unsigned.oldest(LANE)) == (sorted(["nasa", NEIGHBOUR]), NOW)


def test_every_take_looks_at_the_systems_own_log() -> None:
    """A fact with a damaged key is sealed there from any lane, so none but this lane may know that it is not signed."""
    unsigned, _, _ = books("_system", NEIGHBOUR)

    assert unsigned.waiting(LANE) == ["_system"]


def test_a_signed_log_rests_for_a_second_unless_much_is_left() -> None:
    """After a head the next is due in a second; with a thousand leaves left it is due at once."""
    unsigned, _, clock = books()
    unsigned.expect(LANE, {"nasa": NOW})
    unsigned.signed([tree(7, 5)])
    resting = (unsigned.waiting(LANE), unsigned.is_due(tree(7, 5)))
    clock.ticks += 1
    rested = (unsigned.waiting(LANE), unsigned.is_due(tree(7, 5)))
    unsigned.signed([tree(1200, 5)])

    assert (resting, rested) == (([], False), (["nasa"], True))
    assert unsigned.waiting(LANE) == ["nasa"]


def test_a_refused_log_pauses_and_is_kept_while_it_is_behind() -> None:
    """Neither batches nor the timer judge it again too soon; settled is only what is as far as the memory."""
    unsigned, _, clock = books("nasa")
    unsigned.refused(["nasa"])
    paused = (unsigned.waiting(LANE), unsigned.is_due(tree(2000, 0)))
    unsigned.settle(LANE, [tree(0, 0)])
    clock.ticks += 30
    again = unsigned.waiting(LANE)
    unsigned.settle(LANE, [tree(1, 1)])

    assert (paused, again, unsigned.waiting(LANE)) == (([], False), ["nasa"], [])


def test_lanes_that_are_gone_are_forgotten() -> None:
    """What comes late of a lane that was lost changes nothing."""
    unsigned, _, _ = books("nasa")
    gone = unsigned.keep([])
    unsigned.settle(LANE, [tree(1, 1)])
    unsigned.reach(LANE, NOW)

    assert (gone, unsigned.keep([])) == ({LANE}, set())


def test_the_newest_fact_only_moves_on() -> None:
    """How far in time a lane's facts are sealed never goes back."""
    unsigned, _, _ = books()
    for second in (3, 1):
        unsigned.reach(LANE, NOW + timedelta(seconds=second))
    unsigned.reach(LANE, None)

    assert unsigned.newest(LANE) == NOW + timedelta(seconds=3)
