"""What is told of a flood: one decision to the agency for all records of a batch that the brake took, and one fact.

The decision stands under the position of the first of them, which has no other, and names every offset it answers. Its fact
is the agency's where one of the senders is proven, else that of `_system`, so that junk is no line in an agency's log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from flux_common.contracts import catalogue
from flux_common.contracts.decisions import IntakeFlooded, OffsetRange
from flux_common.contracts.envelope import Outgoing
from flux_common.kernel.codes import Code
from flux_common.kernel.ids import SYSTEM_AGENCY, decided_id, derived_id
from flux_ingest.domain.brake import ranges
from flux_ingest.domain.model import Decision, Flooded, Rejected
from flux_ingest.handlers.events import DECISION, EMITTER, place


def of_the_flood(agency_id: str, topic_id: str, at: datetime, decisions: Iterable[Decision]) -> list[Outgoing]:
    """Return the fact and the decision about every `Flooded` record of a batch; nothing if there is none."""
    flooded = [one for one in decisions if isinstance(one, Flooded)]
    if not flooded:
        return []
    told = EMITTER.event(
        catalogue.DECISIONS,
        catalogue.INTAKE_FLOODED,
        _body(agency_id, flooded),
        agency_id=agency_id,
        key=None,
        event_id=decided_id(EMITTER.service, topic_id, flooded[0].position, DECISION),
        at=at,
    )
    return [_fact(told, at, flooded), told]


def _body(agency_id: str, flooded: Sequence[Flooded]) -> IntakeFlooded:
    offsets = ranges([one.position.offset for one in flooded])
    codes = Counter(one.refused.code.value for one in flooded)
    return IntakeFlooded(
        agency_id=agency_id,
        code=Code.INTAKE_FLOODED.value,
        message=Code.INTAKE_FLOODED.meaning,
        position=place(flooded[0].position),
        offsets=[OffsetRange(first=first, last=last) for first, last in offsets],
        count=len(flooded),
        codes=dict(sorted(codes.items())),
    )


def _fact(told: Outgoing, at: datetime, flooded: Sequence[Flooded]) -> Outgoing:
    proven = any(isinstance(one.refused, Rejected) and one.refused.proven for one in flooded)
    refs: dict[str, Any] = {"count": len(flooded), "last_offset": flooded[-1].position.offset}
    return EMITTER.fact(
        told.agency_id if proven else SYSTEM_AGENCY,
        "intake.flooded",
        at=at,
        event_id=derived_id(["fact", told.event_id]),
        subject=told.value,
        outcome="refused",
        code=Code.INTAKE_FLOODED.value,
        position=flooded[0].position,
        refs={"event_id": told.event_id} | refs,
    )
