"""How far behind the seal of each agency's facts is, by what audit says of its lanes.

Audit says of each of its lanes, every few seconds and also when nothing came, up to when facts are sealed: the lane's
*watermark*. All facts of an agency are on one lane, so its seal is behind by what lies between that word and now.

"Now" is the database's: audit takes its watermarks from that clock, so the clock of no process matters. Of a quiet lane
the word is about 5 to 16 seconds old, for silence is believed after 5 seconds and looked for every 10. The last word
counts, though it be older than the one before: who has just taken a lane knows less, and a clock that ran ahead and
was set right must not have left a watermark behind that hides a lag until that time comes. The word is about facts that
are in Kafka; an admitted run leaves ingest by the same outbox as its fact, behind it, and never alone.

| last word of the agency's lane | the seal | an agency with `audit_required` |
|---|---|---|
| none | is not known: audit never ran, or is not heard yet | waits |
| younger than the most, or as old | keeps up | is decided |
| older | is behind | waits |
| of the future by more than the most | is not known: a clock is wrong | waits |

Any agency without `audit_required` is decided, whatever the seal.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from flux_common.kernel.ids import fact_partition


class Seals:
    """The last watermark of each audit lane."""

    def __init__(self, kafka_partitions: int) -> None:
        self._kafka_partitions = kafka_partitions
        self._watermarks: dict[int, datetime] = {}

    def hear(self, kafka_partition: int, watermark: datetime) -> None:
        """Take in what audit says of a lane now."""
        self._watermarks[kafka_partition] = watermark

    def lag(self, agency_id: str, now: datetime) -> timedelta | None:
        """Return by how much the seal of an agency's facts is behind `now`; None where that is not known."""
        watermark = self._watermarks.get(fact_partition(agency_id, self._kafka_partitions))
        return None if watermark is None else now - watermark


def is_behind(lag: timedelta | None, most: timedelta) -> bool:
    """Tell whether a seal is further behind than `most`, or cannot be told to keep up."""
    return lag is None or abs(lag) > most
