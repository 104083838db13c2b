"""What this process knows to be unsigned, by lane, and when each log may be signed next.

Theory. The rows say what is unsigned; this says where to look, for a service role sees only the agencies that it names.
None can be forgotten: whatever a lane is about to seal is noted *before* its transaction; and a log's first leaves are
signed in the transaction that seals them, so a log with leaves that its owner's death left unsigned has a head that is
in the memory, or on its way there in the outbox. Whoever takes a lane reads the memory to its high watermark before the
first signing under the new epoch, and looks once at every agency of that Kafka partition that it names, now or later;
and at the system's own log, for a fact with a damaged key is sealed there from any lane.
Lane and timer settle their transactions in whatever order their tasks resume: only who saw a log at its largest may
say that it is signed to its end, and what a lane sealed behind the timer's back is noted again.
Nothing here is authoritative; looking in vain costs one query.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from flux_audit.domain.signing import Cadence, Tree, is_behind
from flux_audit.ports import HeadMemory
from flux_common.contracts.catalogue import AUDIT
from flux_common.kernel.clock import Clock
from flux_common.kernel.ids import SYSTEM_AGENCY, fact_partition
from flux_common.kernel.positions import Lane, TopicPartition


@dataclass(slots=True)
class LaneBook:
    """Of one lane: `waiting` maps an agency to the time of its oldest unsigned fact (None: not known).

    `expected` holds that time for what was about to be sealed last; `settled` the largest (size, signed size) at which a
    log was settled under this epoch.
    """

    epoch: int
    waiting: dict[str, datetime | None] = field(default_factory=dict)
    expected: dict[str, datetime | None] = field(default_factory=dict)
    settled: dict[str, tuple[int, int]] = field(default_factory=dict)
    heard: set[str] = field(default_factory=set)
    newest: datetime | None = None  # the time of the newest fact that this process sealed


class Unsigned:
    """The books of the lanes that this process has taken."""

    def __init__(self, memory: HeadMemory, clock: Clock, cadence: Cadence) -> None:
        self.memory = memory
        self.cadence = cadence
        self._clock = clock
        self._books: dict[TopicPartition, LaneBook] = {}
        self._left: dict[TopicPartition, dict[str, datetime | None]] = {}  # what waited when a lane was left
        self._signed_at: dict[str, float] = {}
        self._refused_until: dict[str, float] = {}

    # By lane.

    async def prepare(self, lane: Lane) -> None:
        """Before a lane is worked: read the memory to its end once for each Take. Raises Unavailable."""
        if self._epoch(lane.tp) == lane.owner_epoch:
            return
        await self.memory.refresh()
        book = self._books.setdefault(lane.tp, LaneBook(lane.owner_epoch))
        book.epoch = lane.owner_epoch
        book.waiting = self._left.pop(lane.tp, {}) | book.waiting
        book.heard.clear()
        book.settled.clear()
        self.listen(lane.tp)

    def listen(self, tp: TopicPartition) -> None:
        """Look at the logs of this lane of which the memory has heard since the last time."""
        book = self._books[tp]
        heard = {
            agency for agency in self.memory.agencies() if agency not in book.heard and _may_be_sealed_from(tp, agency)
        }
        book.heard |= heard
        for agency in heard:
            book.waiting.setdefault(agency, None)

    def expect(self, tp: TopicPartition, agencies: Mapping[str, datetime | None]) -> None:
        """Note what is about to be sealed, with the time of each log's oldest new fact."""
        book = self._books[tp]
        book.expected = dict(agencies)
        for agency, since in agencies.items():
            book.waiting[agency] = book.waiting.get(agency) or since

    def waiting(self, tp: TopicPartition) -> list[str]:
        """Return the logs to look at now."""
        return sorted(agency for agency in self._books[tp].waiting if self._may_sign(agency))

    def settle(self, tp: TopicPartition, trees: Iterable[Tree]) -> None:
        """Forget the logs that are signed to their end, and note those that are not; call it after the commit."""
        book = self._books.get(tp)
        if book is None:
            return
        for tree in trees:
            agency = tree.agency_id
            if (tree.size, tree.signed_size) < book.settled.get(agency, (0, 0)):
                continue
            book.settled[agency] = (tree.size, tree.signed_size)
            if tree.unsigned or is_behind(tree, self.memory.last(agency)):
                book.waiting.setdefault(agency, book.expected.get(agency))
            else:
                book.waiting.pop(agency, None)
                self._refused_until.pop(agency, None)

    def oldest(self, tp: TopicPartition) -> datetime | None:
        """Return the time of the oldest fact of a lane that is under no signed head."""
        return min((since for since in self._books[tp].waiting.values() if since is not None), default=None)

    def newest(self, tp: TopicPartition) -> datetime | None:
        """Return the time of the newest fact of a lane that this process sealed."""
        return self._books[tp].newest

    def reach(self, tp: TopicPartition, newest: datetime | None) -> None:
        """Note how far in time a lane's facts are sealed."""
        book = self._books.get(tp)
        if book is not None and newest is not None:
            book.newest = max(newest, book.newest or newest)

    def keep(self, tps: Collection[TopicPartition]) -> set[TopicPartition]:
        """Close the books of lanes that are not ours now, and return them; what waits is remembered for the next Take."""
        gone = self._books.keys() - set(tps)
        for tp in gone:
            self._left[tp] = self._books.pop(tp).waiting
        return gone

    # By log.

    def is_due(self, tree: Tree) -> bool:
        """Tell whether a locked tree is to be signed, or at least judged, now."""
        if not self._may_judge(tree.agency_id):
            return False
        signed_at = self._signed_at.get(tree.agency_id)
        since = None if signed_at is None else self._clock.monotonic() - signed_at
        return self.cadence.is_due(tree, since) or is_behind(tree, self.memory.last(tree.agency_id))

    def signed(self, trees: Iterable[Tree]) -> None:
        """Note the trees whose heads were signed now; call it after the commit. A long rest is signed at once."""
        for tree in trees:
            self._refused_until.pop(tree.agency_id, None)
            if tree.unsigned < self.cadence.leaves:
                self._signed_at[tree.agency_id] = self._clock.monotonic()
            else:
                self._signed_at.pop(tree.agency_id, None)

    def refused(self, agencies: Iterable[str]) -> None:
        """Note that heads were refused now: they are judged again after a pause."""
        for agency in agencies:
            self._refused_until[agency] = self._clock.monotonic() + self.cadence.refused_s

    def _may_judge(self, agency: str) -> bool:
        return self._clock.monotonic() >= self._refused_until.get(agency, 0.0)

    def _may_sign(self, agency: str) -> bool:
        signed_at = self._signed_at.get(agency)
        rested = signed_at is None or self._clock.monotonic() - signed_at >= self.cadence.every_s
        return rested and self._may_judge(agency)

    def _epoch(self, tp: TopicPartition) -> int | None:
        book = self._books.get(tp)
        return book.epoch if book is not None else None


def _may_be_sealed_from(tp: TopicPartition, agency: str) -> bool:
    return agency == SYSTEM_AGENCY or fact_partition(agency, AUDIT.kafka_partitions) == tp.kafka_partition
