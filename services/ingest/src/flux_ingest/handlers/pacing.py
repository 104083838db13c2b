"""How gently each lane is worked: what a batch brought says how soon, and in what pieces, the next one is read.

Theory. A refusal past the limit costs little (domain/brake.py), a repetition never does: whoever repeats an accepted body is
proven, and is told by itself that nothing else happens, with a fact and a line of the ledger. That must stay, for a producer
that is not sure of its first send waits for this very answer. One answer for all would say of a request that is accepted that
it was refused, or leave its sender without a run's id. So what is repeated too often is not decided otherwise, only later:
a relay is shared by agencies in the order of their events, and a thousand repetitions at once are two thousand events before
a neighbour's. Past the limit an agency's lanes are read in *bites*, no more of them than there are rests.

| the batch's minutes | rest after it, read gently | next batch at most |
|---|---|---|
| refusals and repetitions no faster than the limit grows | no | as ever |
| faster (*presses*) | `PRESS_REST_S` | as ever: refusals cost by the batch |
| repetitions alone beyond the limit | `PRESS_REST_S` | a bite: `BITE`, or what the limit allows in a rest |
| further repetitions of a lane that is read in bites | if it presses | a bite, so that no minute begins with a thousand |

A minute is that of LogAppendTime; a record that a lane was set back over is no repetition. Repetitions are counted here and
not in the database: nothing is decided by them, and after a restart, or on another process, a flood is only unknown for a
batch. They are counted when they are committed, so a batch that is tried again counts once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from math import ceil
from typing import Final

from flux_common.kernel.positions import TopicPartition
from flux_ingest.domain.brake import presses

PRESS_REST_S: Final = 0.25  # who presses has four batches a second at most: each costs everybody a commit and a send
BITE: Final = 10
MINUTES_KEPT: Final = 60


class Pacing:
    """The pace of every lane, after its last batch."""

    def __init__(self) -> None:
        self._pressing: set[TopicPartition] = set()
        self._bites: dict[TopicPartition, int] = {}
        self._repeated: dict[str, Counter[datetime]] = {}

    def note(
        self,
        tp: TopicPartition,
        agency_id: str,
        refused: Mapping[datetime, int],
        repeated: Mapping[datetime, int],
        per_minute: int,
        now: datetime,
    ) -> None:
        """Take in a committed batch: what its minutes have of refusals by now, and what it repeated itself."""
        self._pressing.discard(tp)
        bitten = self._bites.pop(tp, None) is not None
        counted = self._count(agency_id, repeated)
        if presses(Counter(refused) + counted, per_minute, now):
            self._pressing.add(tp)
        if any(bitten or number > per_minute for number in counted.values()):
            self._bites[tp] = max(BITE, ceil(per_minute * PRESS_REST_S / 60))

    def gently(self, tp: TopicPartition) -> bool:
        """Tell whether a lane's next batch is read gently."""
        return tp in self._pressing

    def rest_s(self, tp: TopicPartition) -> float:
        """Return how long a lane rests."""
        return PRESS_REST_S if tp in self._pressing else 0.0

    def records_max(self, tp: TopicPartition) -> int | None:
        """Return how many records a lane's next batch may have; None if that is not bounded here."""
        return self._bites.get(tp)

    def minutes(self, agency_id: str) -> int:
        """Return how many minutes of an agency are kept."""
        return len(self._repeated.get(agency_id, ()))

    def _count(self, agency_id: str, repeated: Mapping[datetime, int]) -> Counter[datetime]:
        """Add to an agency's minutes; return what those of `repeated` have by now."""
        if not repeated:
            return Counter()
        kept = self._repeated.setdefault(agency_id, Counter())
        kept.update(repeated)
        found = Counter({minute: kept[minute] for minute in repeated})
        older = sorted(kept.keys() - repeated.keys())  # a backlog's own minutes stay, however old
        for minute in older[: max(0, len(kept) - MINUTES_KEPT)]:
            del kept[minute]
        return found
