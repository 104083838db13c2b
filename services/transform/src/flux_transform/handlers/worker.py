"""The worker: takes items while there is room, works several at once, commits what is done.

Theory. The group's committed offset is the truth about which items were answered; terms and chains make a repeated item
harmless, so an offset is committed only after the item's last report is acknowledged, and only as a contiguous prefix.
An item is known by its name and term. A rebalance revokes everything: what the new assignment does not give back is dropped
before its next slice; what it gives back comes again and joins the work in hand, or is answered at once if it is finished.
An item that was dropped because others have it now is not finished: whoever has it answers it, and if it comes back
before the drop was said, that is this worker again.

| item | on | then |
|---|---|---|
| delivered | nobody has it | waits for one of the places |
| delivered | it is in hand | its offset is answered together with the one in hand |
| delivered | it was finished here | its offset is answered at once |
| delivered | it cannot be read | as much as can be read of it is reported, `WORK_UNREADABLE` |
| worked | last report acknowledged | its offsets are done; the prefix is committed, again and again until that succeeds |
| worked | the broker does not answer | worked again after a pause, unless it is dropped |
| waiting | given to others, or the worker stops | let go without a word: it was never begun |
| worked | fenced, given to others, or the worker stops | dropped before its next slice; the report says so |
| worked | the worker's time to stop is over | given up: it is delivered again, to this worker's successor |
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flux_common.contracts import catalogue
from flux_common.contracts.envelope import read_body, read_envelope
from flux_common.kernel.clock import Clock
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import InvalidMessage, Unavailable
from flux_common.kernel.positions import Position, Received, TopicPartition
from flux_common.observability import metrics
from flux_common.observability.logging import get_logger
from flux_common.observability.tracing import step_span
from flux_transform import together
from flux_transform.domain.items import Item
from flux_transform.domain.prefix import ContiguousPrefix
from flux_transform.handlers.dispatched import item_of, what_can_be_read
from flux_transform.handlers.tools import Tools
from flux_transform.handlers.work import refuse_unreadable, work
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
    readable: bool = True
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """A work record as far as it could be read."""

    item: Item
    traceparent: str | None
    readable: bool = True


class Drops(Fences):
    """Says which items to drop: fenced, given to others, or all of them once the worker stops."""

    def __init__(self, heard: Callable[[Item], bool]) -> None:
        self._heard = heard
        self.lost: set[Key] = set()
        self.stopping = False

    def dropped(self, item: Item) -> bool:
        """Return whether the item is no longer this worker's to do."""
        return self.stopping or (item.name, item.term) in self.lost or self._heard(item)

    def for_good(self, item: Item) -> bool:
        """Return whether nobody is to do the item under its term, whoever it is given to."""
        return self._heard(item)


class Worker:
    """The listener of a work consumer: `room` and `deliver` bring items, `commit` takes offsets away."""

    def __init__(
        self, tools: Tools, drops: Drops, *, places: int, ready: asyncio.Event, commit: Commit, clock: Clock
    ) -> None:  # fmt: skip
        self._tools = replace(tools, fences=drops)
        self._drops = drops
        self._places = asyncio.Semaphore(places)
        self._ahead_max = 2 * places
        self._ready = ready
        self._commit = commit
        self._clock = clock
        self._prefixes: dict[TopicPartition, ContiguousPrefix] = {}
        self._to_commit: dict[TopicPartition, int] = {}
        self._committing: asyncio.Task[None] | None = None
        self._in_hand: dict[Key, InHand] = {}
        self._finished: OrderedDict[Key, None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self.failure: BaseException | None = None

    def room(self) -> int:
        """Return how many more items may be handed out now."""
        if self._drops.stopping or not self._ready.is_set():
            return 0
        ahead = max(sum(prefix.pending for prefix in self._prefixes.values()), len(self._in_hand))
        return max(0, self._ahead_max - ahead)

    def deliver(self, records: Sequence[Received]) -> None:
        """Take items over; they come in order, and of assigned Kafka partitions only (else the process has to end)."""
        for record in records:
            self._deliver(record)

    def _deliver(self, record: Received) -> None:
        place = record.position
        self._prefixes[place.tp].begin(place.offset)
        read = _read(record)
        if read is None:
            self._answered([place])
            return
        key = (read.item.name, read.item.term)
        if key in self._finished:
            self._answered([place])
        elif key in self._in_hand:
            self._in_hand[key].places.append(place)
        else:
            entry = InHand(read.item, read.traceparent, [place], place.tp, read.readable)
            self._in_hand[key] = entry
            metrics.items_held.labels("in hand").inc()
            self._spawn(self._see_through(key, entry))

    def assigned(self, tps: frozenset[TopicPartition]) -> None:
        """Begin a new assignment: old places mean nothing any more, and what others have now is dropped."""
        self._prefixes = {tp: ContiguousPrefix() for tp in tps}
        self._to_commit.clear()
        for key, entry in self._in_hand.items():
            entry.places.clear()
            entry.lost = entry.home not in tps
            if entry.lost:
                self._drops.lost.add(key)
            else:
                self._drops.lost.discard(key)

    def revoked(self, tps: frozenset[TopicPartition]) -> None:
        """Wait for the new assignment: whatever is not given back by it is dropped then."""

    async def stop(self, seconds: float) -> None:
        """Take nothing more and let every item reach the end of its slice; give up what has not answered in `seconds`."""
        self._drops.stopping = True
        deadline = self._clock.monotonic() + seconds
        while self._tasks and (left := deadline - self._clock.monotonic()) > 0:
            await asyncio.wait(self._tasks, timeout=left)
        if self._tasks:
            log.warning(
                "items given up; they will be delivered again", items=[e.item.name for e in self._in_hand.values()]
            )
            await together.stop(self._tasks)

    async def _see_through(self, key: Key, entry: InHand) -> None:
        """Work an item until it is answered or dropped."""
        try:
            async with self._places:
                answered = await self._until_answered(entry)
        finally:
            self._in_hand.pop(key, None)
            self._drops.lost.discard(key)
            metrics.items_held.labels("in hand").dec()
        if answered:
            self._remember(key)
            self._answered(entry.places)

    async def _until_answered(self, entry: InHand) -> bool:
        began, tries = self._clock.monotonic(), 0
        while not (self._drops.stopping or entry.lost):
            tries += 1
            try:
                with step_span("work item", entry.traceparent, kind=entry.item.kind):
                    failure = await self._try(entry)
                    answered = self._is_final(entry.item, failure)
                    _tell(entry.item, failure, tries, self._clock.monotonic() - began, answered)
            except Unavailable as problem:
                log.warning("item waits for the broker", item=entry.item.name, code=problem.code)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if answered:
                return True
        return False

    async def _try(self, entry: InHand) -> Failure | None:
        if entry.readable:
            return await work(self._tools, entry.item)
        return await refuse_unreadable(self._tools, entry.item)

    def _is_final(self, item: Item, failure: Failure | None) -> bool:
        """Return whether the last report ends the item; not if others have it, for it may come back."""
        if failure is None or failure.code != Code.DROPPED:
            return True
        if self._drops.for_good(item):
            metrics.items_fenced.inc()
            return True
        return self._drops.stopping

    def _remember(self, key: Key) -> None:
        self._finished[key] = None
        while len(self._finished) > FINISHED_REMEMBERED:
            self._finished.popitem(last=False)

    def _answered(self, places: Sequence[Position]) -> None:
        """Mark places as done, and have it committed where a prefix grew."""
        for place in places:
            prefix = self._prefixes.get(place.tp)
            reached = prefix.done(place.offset) if prefix is not None else None
            if reached is not None:
                self._to_commit[place.tp] = reached
        if self._to_commit and (self._committing is None or self._committing.done()):
            self._committing = self._spawn(self._commit_all())

    async def _commit_all(self) -> None:
        """Commit what is to be committed, one commit at a time, until all of it is."""
        while self._to_commit:
            offsets = dict(self._to_commit)
            if not await self._commit(offsets):
                await asyncio.sleep(RETRY_SECONDS)
                continue
            for tp, offset in offsets.items():
                if self._to_commit.get(tp) == offset:
                    del self._to_commit[tp]

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.failure = self.failure or task.exception()


def _tell(item: Item, failure: Failure | None, tries: int, seconds: float, answered: bool) -> None:
    """Write the one line of an item."""
    log.info(
        "item answered" if answered else "item left to others",
        run_id=item.run_id,
        agency_id=item.agency_id,
        item=item.name,
        kind=item.kind,
        term=item.term,
        code=failure.code if failure else None,
        last_seq=failure.last_seq if failure else None,
        tries=tries,
        duration_ms=round(seconds * 1000),
    )


def _read(record: Received) -> Read | None:
    """Return the item and its trace, or who it is at least; None if not even that can be told.

    Nobody can be told of such a record; checkpoint gives the item anew after `queued_max`.
    """
    try:
        traceparent = read_envelope(record).traceparent
        return Read(item_of(read_body(catalogue.WORK_DISPATCHED, record.value)), traceparent)
    except InvalidMessage as problem:
        item = what_can_be_read(record.value)
        named = item.name if item is not None else None
        log.error("work item unreadable", position=str(record.position), code=problem.code, item=named)
        return Read(item, None, readable=False) if item is not None else None
