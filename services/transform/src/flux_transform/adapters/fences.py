"""The fences topic as a worker knows it: read to its end before the first item, then followed.

A fence names a run with the least attempt that may still be worked, or an item with the least term. Later fences of a key
are higher or the same, so the greatest heard is what counts, and hearing one twice changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from flux_common.contracts import catalogue
from flux_common.contracts.envelope import read_body
from flux_common.contracts.work import WorkFenced
from flux_common.kafka.follow import hear_topic
from flux_common.kernel.errors import InvalidMessage
from flux_common.kernel.ids import item_name
from flux_common.kernel.positions import Received
from flux_common.observability.logging import get_logger
from flux_common.settings import KafkaSettings
from flux_transform.domain.items import Item

log = get_logger(__name__)

REMEMBERED_MAX = 200_000


class HeardFences:
    """What has been heard of fences so far; `ready` is set once the topic was read to its end."""

    def __init__(self) -> None:
        self._least: OrderedDict[str, int] = OrderedDict()
        self.ready = asyncio.Event()

    def fenced(self, item: Item) -> bool:
        """Tell whether the item, or its run's attempt, was called back."""
        return item.term < self._least.get(item.name, 0) or item.run_attempt < self._least.get(item.run_id, 0)

    def hear(self, records: Sequence[Received]) -> None:
        """Take fences in; what cannot be read is logged, for it cannot name what it fences."""
        for record in records:
            try:
                self._keep(read_body(catalogue.WORK_FENCED, record.value))
            except InvalidMessage as problem:
                log.error("fence unreadable", position=str(record.position), code=problem.code)

    def _keep(self, fence: WorkFenced) -> None:
        if fence.run_attempt_min is not None:
            self._raise(fence.run_id, fence.run_attempt_min)
        if fence.kind is not None and fence.number is not None and fence.term_min is not None:
            self._raise(item_name(fence.run_id, fence.kind, fence.number), fence.term_min)

    def _raise(self, name: str, least: int) -> None:
        self._least[name] = max(least, self._least.pop(name, 0))
        while len(self._least) > REMEMBERED_MAX:
            self._least.popitem(last=False)

    async def follow(self, settings: KafkaSettings, stopping: asyncio.Event) -> None:
        """Read the topic to its end, then on, until `stopping`; goes on where it was when Kafka answers again."""
        await hear_topic(settings, catalogue.FENCES.name, self.hear, stopping, at_end=self.ready.set)
