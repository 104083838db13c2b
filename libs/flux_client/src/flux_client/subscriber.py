"""What an agency hears from Flux.

    async with FluxSubscriber("nasa", settings) as subscriber:
        async for completion in subscriber:
            print(completion.type, completion.body)

Completions, decisions and receipts are streams of their own (streams.py: `read_committed`, each event once, with or
without a group). With a `trust`, every decision to accept and every terminal event is given only after its receipt was
found and proven: an event whose receipt does not come raises `ReceiptMissing`, one whose receipt is false raises
`VerificationFailed`, and with a group the event stays unhandled then.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Self

from flux_client.events import ATTESTED, ReceivedEvent
from flux_client.receipts import ReceiptReader
from flux_client.streams import EventStream, FollowerSource, GroupSource, Source
from flux_client.verifier import Trust
from flux_common.contracts.catalogue import COMPLETIONS, DECISIONS, RECEIPTS, TopicSpec
from flux_common.kafka.follow import Start
from flux_common.kernel.clock import Clock, SystemClock
from flux_common.settings import KafkaSettings


class ProvenStream(EventStream):
    """A stream whose attested events come with their proven receipts."""

    def __init__(self, source: Source, receipts: ReceiptReader, trust: Trust, timeout_s: float) -> None:
        super().__init__(source)
        self._receipts, self._trust, self._timeout_s = receipts, trust, timeout_s

    async def open(self) -> None:
        """Stand on the receipts first, so that none is written unread. Raises Unavailable."""
        if not self._opened:
            await self._receipts.open()
            await super().open()

    async def poll(self) -> ReceivedEvent | None:
        """Return the next event, proven where it is attested; None when there is none within about 200 ms.

        Raises:
            ReceiptMissing, VerificationFailed, Unavailable: the event is not given; the next call tries it again.
        """
        event = await super().poll()
        if event is None or event.type not in ATTESTED:
            return event
        try:
            receipt = await self._receipts.prove(event, self._trust, self._timeout_s)
        except BaseException:
            self._given = None  # not given before it is proven, and so never handled
            self._waiting.appendleft(event)
            raise
        return replace(event, receipt=receipt)

    async def close(self) -> None:
        """Disconnect; safe at any time."""
        await super().close()
        await self._receipts.close()


class FluxSubscriber:
    """Reads an agency's topics; iterating it gives completions.

    `group` names a consumer group (Kafka keeps the place; it begins at the log start), and where brokers have logins it must
    begin with `flux.<agency>.`; without one reading begins at
    `start`: "end", "beginning", or an offset per Kafka partition. `trust` asks for proven receipts, each of which may
    take `receipt_timeout_s` seconds to come.
    """

    def __init__(
        self, agency: str, settings: KafkaSettings, *, group: str | None = None, start: Start = "end",
        trust: Trust | None = None, receipt_timeout_s: float = 30.0, clock: Clock | None = None,
    ) -> None:  # fmt: skip
        self._agency, self._settings = agency, settings
        self._group, self._start = group, start
        self._trust, self._receipt_timeout_s = trust, receipt_timeout_s
        self._clock = clock or SystemClock()
        self._streams: list[EventStream] = []

    def completions(self) -> EventStream:
        """Return the ends of runs, and what became of commands. Each call is a reader of its own."""
        return self._stream(COMPLETIONS)

    def decisions(self) -> EventStream:
        """Return ingest's answers to requests and commands."""
        return self._stream(DECISIONS)

    def receipts(self) -> EventStream:
        """Return receipts as they come, unproven: `receipt_proof` and the verifier judge them."""
        return self._stream(RECEIPTS)

    async def close(self) -> None:
        """Close every stream that was asked for; safe at any time."""
        streams, self._streams = self._streams, []
        for stream in streams:
            await stream.close()

    def __aiter__(self) -> AsyncIterator[ReceivedEvent]:
        return aiter(self.completions())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _stream(self, topic: TopicSpec) -> EventStream:
        source, proven = self._source(topic), self._trust is not None and topic is not RECEIPTS
        stream = self._proven(source) if proven else EventStream(source)
        self._streams.append(stream)
        return stream

    def _source(self, topic: TopicSpec) -> Source:
        name = topic.of(self._agency)
        if self._group is not None:
            return GroupSource(self._settings, name, self._group, self._clock)
        return FollowerSource(self._settings, name, self._start)

    def _proven(self, source: Source) -> EventStream:
        assert self._trust is not None
        latest = self._group is None and self._start == "end"
        receipts = ReceiptReader(self._agency, self._settings, self._clock, "end" if latest else "beginning")
        return ProvenStream(source, receipts, self._trust, self._receipt_timeout_s)
