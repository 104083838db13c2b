"""Waiting for the receipts of events, and proving them.

Receipts come after their events (p99 below two seconds), on a topic of their own and in no common order. They are read
on demand: while somebody waits for one, others that pass by are kept for later, up to a bound. A receipt that does not
come in time is an error of its own, never silence: an event without a proof must not look like one with it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from flux_client.events import ReceivedEvent
from flux_client.receipt_proof import ProvenReceipt, prove_event
from flux_client.streams import EventStream, FollowerSource
from flux_client.verifier import Trust
from flux_common.contracts.catalogue import RECEIPTS
from flux_common.contracts.facts import AuditSealed
from flux_common.kafka.follow import Start
from flux_common.kernel.clock import Clock
from flux_common.settings import KafkaSettings

KEPT_MAX: Final = 10_000


class ReceiptMissing(TimeoutError):
    """The event's receipt did not come within the time that was given."""


class ReceiptReader:
    """Finds the receipts of one agency's events by the events' ids."""

    def __init__(self, agency: str, settings: KafkaSettings, clock: Clock, start: Start = "end") -> None:
        self._stream = EventStream(FollowerSource(settings, RECEIPTS.of(agency), start))
        self._clock = clock
        self._kept: OrderedDict[str, dict[str, Any]] = OrderedDict()

    async def open(self) -> None:
        """Stand where reading is to begin. Raises Unavailable."""
        await self._stream.open()

    async def find(self, event_id: str, timeout_s: float) -> dict[str, Any]:
        """Return the receipt of `event_id`, as the JSON object that the verifier reads.

        Raises:
            ReceiptMissing: it did not come within `timeout_s` seconds.
            Unavailable: Kafka does not answer.
        """
        deadline = self._clock.monotonic() + timeout_s
        while event_id not in self._kept:
            event = await self._stream.poll()
            if event is not None and isinstance(event.body, AuditSealed):
                self._keep(event.body)
            elif self._clock.monotonic() >= deadline:
                raise ReceiptMissing(f"no receipt of event {event_id} within {timeout_s:g} s")
        return self._kept[event_id]

    async def prove(self, event: ReceivedEvent, trust: Trust, timeout_s: float) -> ProvenReceipt:
        """Return the proven receipt of `event`.

        Raises:
            ReceiptMissing, Unavailable: as `find`.
            VerificationFailed: a receipt came, and does not prove the event.
        """
        return prove_event(event.event_id, event.value, await self.find(event.event_id, timeout_s), trust)

    async def close(self) -> None:
        """Disconnect; safe at any time."""
        await self._stream.close()

    def _keep(self, sealed: AuditSealed) -> None:
        self._kept[sealed.event_id] = sealed.model_dump(mode="json")
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
