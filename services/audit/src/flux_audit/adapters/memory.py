"""The signer's memory in Kafka: the compacted topic of tree heads, read to its high watermark.

Theory. What was published cannot be taken back, so what the topic says binds the signer, whatever the database says. Of
each agency the largest head counts; of two heads of one size the first. Reading is `read_committed` and waits for
transactions that are open before the high watermark: a head that a predecessor's relay was about to publish is waited
for (or is aborted, and then is still in the outbox).
Failure. A record under an agency's key that is no head of that agency's log would make us forget, compaction at the latest:
it is remembered as a head that no log extends, so nothing is signed for the agency until a person has looked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

import structlog
from pydantic import ValidationError

from flux_audit.domain.tree_head import ROOT_BYTES, SIZE_MAX, HeadMalformed, TreeHead, read_note
from flux_common.contracts.catalogue import TREE_HEADS
from flux_common.contracts.facts import TreeHeadSigned
from flux_common.kafka.follow import TopicFollower
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Unavailable
from flux_common.kernel.positions import Received
from flux_common.settings import KafkaSettings

log = structlog.get_logger(__name__)

REFRESH_SECONDS: Final = 30.0  # above the time-out of a transaction that a killed relay left open
LANE_KEYS: Final = "_lane/"
UNKNOWN: Final = TreeHead("unknown", SIZE_MAX, bytes(ROOT_BYTES))


class TreeHeadMemory:
    """The `HeadMemory` of this process. Many tasks may refresh it; one reads at a time."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._follower: TopicFollower | None = None
        self._reading = asyncio.Lock()
        self._heads: dict[str, TreeHead] = {}

    async def refresh(self) -> None:
        """Read what was published up to now. Raises Unavailable; what is known stays."""
        async with self._reading:
            try:
                async with asyncio.timeout(REFRESH_SECONDS):
                    await self._read()
            except TimeoutError as problem:
                await self._let_go()
                raise Unavailable(
                    Code.BROKER_UNAVAILABLE, "The tree heads' topic cannot be read to its end"
                ) from problem
            except BaseException:
                await self._let_go()
                raise

    def last(self, agency_id: str) -> TreeHead | None:
        """Return the last published head; None if there never was one."""
        return self._heads.get(agency_id)

    def agencies(self) -> Collection[str]:
        """Return whose heads were ever published."""
        return self._heads.keys()

    async def close(self) -> None:
        """Disconnect; safe at any time."""
        async with self._reading:
            await self._let_go()

    async def _read(self) -> None:
        if self._follower is None:
            follower = TopicFollower(self._settings, [TREE_HEADS.name])
            await follower.open()
            self._follower = follower
        async for records in self._follower.to_end():
            for record in records:
                self._take_in(record)

    async def _let_go(self) -> None:
        follower, self._follower = self._follower, None
        if follower is not None:
            await follower.close()

    def _take_in(self, record: Received) -> None:
        key = (record.key or b"").decode(errors="replace")
        if key.startswith(LANE_KEYS):
            return
        head, known = _read_head(key, record), self._heads.get(key)
        if known is None or head.size > known.size:
            self._heads[key] = head


def _read_head(agency_id: str, record: Received) -> TreeHead:
    """Return the head that a record states; `UNKNOWN` for one that states none of this agency."""
    try:
        body = TreeHeadSigned.model_validate_json(record.value or b"")
        head, _ = read_note(body.tree_head)
    except (ValidationError, HeadMalformed):
        head = None
    if head is not None and (body.agency_id, body.size, body.root) == (agency_id, head.size, head.root.hex()):
        return head
    log.error("a record of the signer's memory is no tree head", agency_id=agency_id, position=str(record.position))
    return UNKNOWN
