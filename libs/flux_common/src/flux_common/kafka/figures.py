"""The lane loop's gauges: what is owned, what waits and why, and how far behind it is.

Written once a second over all lanes. Series of lanes that are gone are removed, so that a lane is never shown by two
processes at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client import Gauge

from flux_common.kafka.owned import Owned, State
from flux_common.kernel.clock import Clock
from flux_common.observability import metrics

Series = tuple[Gauge, tuple[str, ...]]


class LaneFigures:
    """Writes the gauges, and remembers which series it wrote."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._shown: set[Series] = set()

    def measure(self, lanes: Iterable[Owned]) -> None:
        """Write every gauge anew for `lanes`."""
        lanes = list(lanes)
        found: dict[Series, float] = {}
        counted = Counter((owned.tp.topic, owned.state, owned.why) for owned in lanes)
        for (topic, state, why), number in counted.items():
            if state in (State.READY, State.HELD):
                key: Series = (metrics.lanes_owned, (topic,))
            else:
                key = (metrics.lanes_untaken, (topic, f"{state}: {why}"))
            found[key] = found.get(key, 0) + number
        for owned in lanes:
            self._measure_one(owned, found)
        metrics.topics_unregistered.set(len({o.tp.topic for o in lanes if o.state is State.IGNORED}))
        self._show(found)

    def _measure_one(self, owned: Owned, found: dict[Series, float]) -> None:
        labels = (owned.tp.topic, str(owned.tp.kafka_partition))
        if owned.state is State.STOPPED:
            found[metrics.lanes_stopped, (*labels, owned.why)] = 1
        if owned.lane is None or (end := owned.highwater) is None:
            return
        lag = max(end - owned.lane.next_offset, 0)
        found[metrics.lane_lag_records, labels] = lag
        if owned.stamp is not None:
            age = (self._clock.now() - owned.stamp).total_seconds()
            found[metrics.lane_lag_seconds, labels] = age if lag else 0

    def _show(self, found: dict[Series, float]) -> None:
        for gauge, labels in self._shown - set(found):
            gauge.remove(*labels)
        for (gauge, labels), value in found.items():
            gauge.labels(*labels).set(value)
        self._shown = set(found)
