"""Sending one record and learning where it stands.

A producer's own publisher: `flux_common.kafka` makes and judges the client (acks=all, idempotent, limits below the
topic's); what is added here is the position. At-least-once: after `Unavailable` the record may have been written, and
sending it again is harmless, because Flux knows a request by its id and digest. After any error the client is thrown
away and the next send makes another one.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from flux_common.contracts.envelope import Outgoing
from flux_common.kafka.names import Names
from flux_common.kafka.producing import PRODUCER_ERRORS, discard, judged, new_producer, refuse_oversized
from flux_common.kernel.positions import Position, TopicPartition
from flux_common.settings import KafkaSettings

SEND_SECONDS: Final = 30.0


class RecordSender:
    """Sends records one at a time or from many tasks at once; connects at the first."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._names = Names(settings.topic_prefix)
        self._client: Any = None
        self._opening = asyncio.Lock()

    async def send(self, event: Outgoing) -> Position:
        """Write the event and return its position once all replicas in sync have it.

        Raises:
            PublishRefused: the broker will never take it (no such topic, forbidden, too large).
            Unavailable: try again; it may have been written.
        """
        refuse_oversized([event])
        client: Any = None
        try:
            async with asyncio.timeout(SEND_SECONDS):
                client = await self._ready()
                written = await client.send_and_wait(
                    self._names.outward(event.topic),
                    event.value,
                    key=None if event.key is None else event.key.encode(),
                    partition=event.kafka_partition,
                    headers=event.headers,
                )
        except PRODUCER_ERRORS as problem:
            await self._give_up(client)
            raise judged([problem], [event]) from problem
        except BaseException:
            await self._give_up(client)
            raise
        return TopicPartition(event.topic, written.partition).at(written.offset)

    async def close(self) -> None:
        """Disconnect; safe at any time."""
        await self._give_up(self._client)

    async def _ready(self) -> Any:
        async with self._opening:
            if self._client is None:
                client = new_producer(self._settings)
                try:
                    await client.start()
                except BaseException:
                    await discard(client)
                    raise
                self._client = client
            return self._client

    async def _give_up(self, client: Any) -> None:
        if client is None:
            return
        if self._client is client:
            self._client = None
        await discard(client)
