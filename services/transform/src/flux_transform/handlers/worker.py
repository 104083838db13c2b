"""The worker: takes items while there is room, works several at once, commits what is done.

Theory. The group's committed offset is the truth about which items were answered; terms and chains make a repeated item
harmless, so an offset is committed only after the item's last report is acknowledged, and only as a contiguous prefix.
An item is known by its name and term. A rebalance revokes everything: what the new assignment does not give back is dropped
before its next slice; what it gives back comes again and joins the work in hand, or is answered at once if it is finished.

| item | on | then |
|---|---|---|
| delivered | nobody has it | waits for one of the places |
| delivered | it is in hand | its offset is answered together with the one in hand |
| delivered | it was finished here | its offset is answered at once |
| worked | last report acknowledged | its offsets are done; the prefix is committed |
| worked | the broker does not answer | worked again after a pause, unless it is dropped |
| anything | fenced, given to others, or the worker stops | dropped before its next slice; the report says so |
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flux_common.contracts import catalogue
from flux_common.contracts.envelope import read_body, read_envelope
from flux_common.kernel.errors import InvalidMessage, Unavailable
from flux_common.kernel.positions import Position, Received, TopicPartition
from flux_common.observability.logging import get_logger
from flux_common.observability.tracing import step_span
from flux_transform.domain.items import Item
from flux_transform.domain.prefix import ContiguousPrefix
from flux_transform.handlers.dispatched import item_of
from flux_transform.handlers.tools import Tools
from flux_transform.handlers.work import work
from flux_transform.ports import Failure, Fences

log = get_logger(__name__)

FINISHED_REMEMBERED = 10_000
RETRY_SECONDS = 2.0

Commit = Callable[[Mapping[TopicPartition, int]], Awaitable[bool]]
Key = tuple[str, int]


@dataclass(slots=True)
class InHand:
    """An item being worked or waiting, and the places that its end answers."""

    item: Item
    traceparent: str | None
    places: list[Position]
    home: TopicPartition
    lost: bool = False
    task: asyncio.Task[None] | None = field(default=None)


class Drops(Fences):
    """Says which items to drop: fenced, given to others, or all of them once the worker stops."""

    def __init__(self, heard: Callable[[Item], bool]) -> None:
        self._heard = heard
        self.lost: set[Key] = set()
        self.stopping = False

    def dropped(self, item: Item) -> bool:
        """Return whether the item is no longer this worker's to do."""
        return self.stopping or (item.name, item.term) in self.lost or self._heard(item)


class Worker:
    """The listener of a work consumer: `room` and `deliver` bring items, `commit` takes offsets away."""

    def __init__(self, tools: Tools, drops: Drops, *, places: int, ready: asyncio.Event, commit: Commit) -> None:
        self._tools = replace(tools, fences=drops)
        self._drops = drops
        self._places = asyncio.Semaphore(places)
        self._ahead_max = 2 * places
        self._ready = ready
        self._commit = commit
        self._prefixes: dict[TopicPartition, ContiguousPrefix] = {}
        self._in_hand: dict[Key, InHand] = {}
        self._finished: OrderedDict[Key, None] = OrderedDict()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.failure: BaseException | None = None

    def room(self) -> int:
        """Return how many more items may be handed out now."""
        if self._drops.stopping or not self._ready.is_set():
            return 0
        ahead = max(sum(prefix.pending for prefix in self._prefixes.values()), len(self._in_hand))
        return max(0, self._ahead_max - ahead)

    def deliver(self, records: Sequence[Received]) -> None:
        """Take items over."""
        for record in records:
            self._deliver(record)

    def _deliver(self, record: Received) -> None:
        place = record.position
        self._prefixes[place.tp].begin(place.offset)
        found = _read(record)
        if found is None:
            self._answered([place])
            return
        item, traceparent = found
        key = (item.name, item.term)
        if key in self._finished:
            self._answered([place])
        elif key in self._in_hand:
            self._in_hand[key].places.append(place)
        else:
            entry = self._in_hand[key] = InHand(item, traceparent, [place], place.tp)
            entry.task = self._spawn(self._see_through(key, entry))

    def assigned(self, tps: frozenset[TopicPartition]) -> None:
        """Begin a new assignment: old places mean nothing any more, and what others have now is dropped."""
        self._prefixes = {tp: ContiguousPrefix() for tp in tps}
        for key, entry in self._in_hand.items():
            entry.places.clear()
            entry.lost = entry.home not in tps
            if entry.lost:
                self._drops.lost.add(key)
            else:
                self._drops.lost.discard(key)

    def revoked(self, tps: frozenset[TopicPartition]) -> None:
        """Wait for the new assignment: whatever is not given back by it is dropped then."""

    async def stop(self) -> None:
        """Take nothing more, let every item reach the end of its slice, and return when all have answered."""
        self._drops.stopping = True
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _see_through(self, key: Key, entry: InHand) -> None:
        """Work an item until it is answered or dropped."""
        try:
            async with self._places:
                answered = await self._until_answered(entry)
        finally:
            self._in_hand.pop(key, None)
            self._drops.lost.discard(key)
        if answered:
            self._remember(key)
            self._answered(entry.places)

    async def _until_answered(self, entry: InHand) -> bool:
        while not (self._drops.stopping or entry.lost):
            try:
                with step_span("work item", entry.traceparent, kind=entry.item.kind):
                    _tell(entry.item, await work(self._tools, entry.item))
                return True
            except Unavailable as problem:
                log.warning("item waits for the broker", item=entry.item.name, code=problem.code)
                await asyncio.sleep(RETRY_SECONDS)
        return False

    def _remember(self, key: Key) -> None:
        self._finished[key] = None
        while len(self._finished) > FINISHED_REMEMBERED:
            self._finished.popitem(last=False)

    def _answered(self, places: Sequence[Position]) -> None:
        """Mark places as done, and commit where a prefix grew."""
        grown: dict[TopicPartition, int] = {}
        for place in places:
            prefix = self._prefixes.get(place.tp)
            reached = prefix.done(place.offset) if prefix is not None else None
            if reached is not None:
                grown[place.tp] = reached
        if grown:
            self._spawn(self._commit(grown))

    def _spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.failure = self.failure or task.exception()


def _tell(item: Item, failure: Failure | None) -> None:
    """Write the one line of an answered item."""
    log.info(
        "item answered",
        run_id=item.run_id,
        agency_id=item.agency_id,
        item=item.name,
        term=item.term,
        code=failure.code if failure else None,
    )


def _read(record: Received) -> tuple[Item, str | None] | None:
    """Return the item and its trace; None where it cannot be read: checkpoint gives it anew after `queued_max`."""
    try:
        envelope = read_envelope(record)
        return item_of(read_body(catalogue.WORK_DISPATCHED, record.value)), envelope.traceparent
    except InvalidMessage as problem:
        log.error("work item unreadable", position=str(record.position), code=problem.code)
        return None
