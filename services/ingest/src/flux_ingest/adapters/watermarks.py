"""What audit says of its lanes, heard from the topic of tree heads.

The topic is compacted: read from its start it still has the last word of each lane, which may be of long ago. That is no
harm, for a watermark is compared with the time of now, however late it is heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from flux_common.contracts.catalogue import LANE_WATERMARK, TREE_HEADS
from flux_common.contracts.envelope import read_body, read_envelope
from flux_common.contracts.facts import LaneWatermark
from flux_common.kafka.follow import hear_topic
from flux_common.kernel.errors import InvalidMessage
from flux_common.kernel.positions import Received
from flux_common.observability import metrics
from flux_common.observability.logging import get_logger
from flux_common.settings import KafkaSettings
from flux_ingest.domain.seals import Seals

log = get_logger(__name__)


class HeardWatermarks:
    """Follows the topic, and tells `seals` of every lane's watermark."""

    def __init__(self, seals: Seals) -> None:
        self._seals = seals

    async def follow(self, settings: KafkaSettings, stopping: asyncio.Event) -> None:
        """Hear until `stopping`; what is known stays while Kafka does not answer, and grows old."""
        await hear_topic(settings, TREE_HEADS.name, self.hear, stopping)

    def hear(self, records: Sequence[Received]) -> None:
        """Take watermarks in; what cannot be read is logged, and leaves its lane with the word it had."""
        for record in records:
            try:
                if read_envelope(record).type == LANE_WATERMARK.ce_type:
                    self._take_in(read_body(LANE_WATERMARK, record.value))
            except InvalidMessage as problem:
                log.error("watermark unreadable", position=str(record.position), code=problem.code)

    def _take_in(self, said: LaneWatermark) -> None:
        watermark = datetime.fromisoformat(said.watermark)
        self._seals.hear(said.kafka_partition, watermark)
        metrics.seal_watermark.labels(str(said.kafka_partition)).set(watermark.timestamp())
