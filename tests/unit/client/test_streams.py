"""A stream gives each event once, and counts it as handled when the next one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from flux_client.streams import REMEMBERED_MAX, EventStream, GroupSource
from flux_common.kernel.clock import SystemClock
from flux_common.kernel.positions import Position, Received, TopicPartition
from flux_common.settings import KafkaSettings

TP = TopicPartition("flux.nasa.run.completions.v1", 0)
Make = Callable[[int, str], Received]


class ListSource:
    """A source over batches in memory; remembers what was handled."""

    def __init__(self, *batches: Sequence[Received]) -> None:
        self._batches = list(batches)
        self.handled_positions: list[Position] = []
        self.opened = self.closed = 0

    async def open(self) -> None:
        self.opened += 1

    async def poll(self) -> Sequence[Received]:
        return self._batches.pop(0) if self._batches else ()

    async def handled(self, position: Position) -> None:
        self.handled_positions.append(position)

    async def close(self) -> None:
        self.closed += 1


async def test_an_event_is_given_once_whatever_its_place(record: Make) -> None:
    """A repeated `ce_id` is the same event, also in a later batch."""
    stream = EventStream(ListSource([record(0, "a"), record(1, "b"), record(2, "a")], [record(3, "b"), record(4, "c")]))

    given = [event.event_id for event in [await anext(stream), await anext(stream), await anext(stream)]]

    assert given == ["a", "b", "c"]


async def test_an_event_is_handled_when_the_next_is_asked_for(record: Make) -> None:
    """Not when it is given: whoever dies with it gets it again."""
    source = ListSource([record(0, "a"), record(1, "b")])
    stream = EventStream(source)
    await stream.poll()
    before = list(source.handled_positions)
    await stream.poll()

    assert (before, source.handled_positions) == ([], [TP.at(0)])


async def test_closing_does_not_handle_the_event_given_last(record: Make) -> None:
    """A crash between two events loses none."""
    source = ListSource([record(0, "a")])
    async with EventStream(source) as stream:
        await anext(stream)

    assert (source.handled_positions, source.opened, source.closed) == ([], 1, 1)


async def test_a_batch_without_events_is_handled_at_once(record: Make) -> None:
    """Repeated and unreadable records do not hold the place up."""
    source = ListSource([record(0, "a")], [record(1, "a"), replace(record(2, "x"), value=b"not json")])
    stream = EventStream(source)
    given = [await stream.poll(), await stream.poll(), await stream.poll()]

    assert [event.event_id if event else None for event in given] == ["a", None, None]
    assert source.handled_positions == [TP.at(0), TP.at(2)]


async def test_a_group_member_drops_what_waits_at_a_new_assignment(record: Make) -> None:
    """What is still its own comes again from the committed offset; nothing is given under an old assignment."""
    source = GroupSource(KafkaSettings(bootstrap="127.0.0.1:1"), TP.topic, "g", SystemClock())
    source.deliver([record(0, "a")])
    source.assigned(frozenset({TP}))

    assert list(await source.poll()) == []


async def test_a_group_member_has_room_for_what_it_has_not_given(record: Make) -> None:
    """Room shrinks with what waits and comes back as it is given."""
    source = GroupSource(KafkaSettings(bootstrap="127.0.0.1:1"), TP.topic, "g", SystemClock())
    rooms = [source.room()]
    source.deliver([record(0, "a"), record(1, "b")])
    rooms.append(source.room())
    await source.poll()
    rooms.append(source.room())

    assert [rooms[0] - room for room in rooms] == [0, 2, 1]


async def test_what_is_remembered_is_bounded(record: Make) -> None:
    """The first of many ids is forgotten, and would be given again."""
    times = REMEMBERED_MAX + 1
    stream = EventStream(ListSource([record(n, f"e{n}") for n in range(times)], [record(times, "e0")]))
    given = [(await anext(stream)).event_id for _ in range(times + 1)]

    assert given[-1] == "e0"
