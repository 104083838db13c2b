"""What arrives on an agency's topics, read once and in one way.

A record is believed to be what its envelope says (`ce_type`), and its body must keep that event's contract. What cannot
be read is nobody's event: readers skip it with a warning and go on, for one bad record must not end a subscription, and
only Flux's own services may write to the topics that are read here. `ce_id` is the idempotency key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from flux_client.receipt_proof import ProvenReceipt
from flux_common.contracts.catalogue import EVENTS
from flux_common.contracts.decisions import IntakeFlooded
from flux_common.contracts.envelope import read_body, read_envelope
from flux_common.contracts.types import Event
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import ValidationFailed
from flux_common.kernel.positions import Position, Received

TERMINAL: Final = frozenset({"flux.run.completed.v1", "flux.run.failed.v1", "flux.run.cancelled.v1"})
# Events that get a receipt without anybody asking; others may have one where the agency asks for it.
ATTESTED: Final = TERMINAL | {"flux.run.accepted.v1"}


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """One event: its `ce_id`, `ce_type` and body, the exact bytes of the body, and where the record stood.

    `receipt` is there where the subscriber was asked to check receipts and the event has one.
    """

    event_id: str
    type: str
    body: Event
    value: bytes
    position: Position
    traceparent: str | None = None
    receipt: ProvenReceipt | None = None

    def document(self) -> dict[str, Any]:
        """Return the event as one JSON object: type and id first, then the body's members."""
        return {
            "type": self.type,
            "event_id": self.event_id,
            **self.body.model_dump(mode="json", exclude_none=True),
        }


def read_event(record: Received) -> ReceivedEvent:
    """Return the event that a record is.

    Raises:
        ValidationFailed: its envelope or its body cannot be read, or Flux has no event of this type.
    """
    envelope = read_envelope(record)
    spec = EVENTS.get(envelope.type)
    if spec is None:
        raise ValidationFailed(Code.EVENT_TYPE_UNKNOWN, "This release of the client does not know the event")
    body = read_body(spec, record.value)
    return ReceivedEvent(
        envelope.id, envelope.type, body, record.value or b"", record.position, traceparent=envelope.traceparent
    )


def answers(body: Any, position: Position) -> bool:
    """Tell whether an event's body is about the record at `position`: by its own position, or by a range of offsets."""
    named = getattr(body, "position", None)
    if named is None or (named.topic, named.kafka_partition) != (position.tp.topic, position.tp.kafka_partition):
        return False
    if isinstance(body, IntakeFlooded):
        return body.answers(position.offset)
    return bool(named.offset == position.offset)
