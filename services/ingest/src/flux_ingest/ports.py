"""What ingest's handlers need from outside, in the domain's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from flux_common.kernel.positions import LaneBatch
from flux_ingest.domain.model import Decision, Finding, Known


class DecisionStore(Protocol):
    """What one agency asked for and got, inside one transaction."""

    async def lock(self) -> None:
        """Let no other lane of the agency decide until this transaction ends."""
        ...

    async def known(self, batch: LaneBatch, findings: Sequence[Finding]) -> Known:
        """Return what earlier decisions left behind of the ids, single uses and positions of a batch."""
        ...

    async def save(self, decisions: Sequence[Decision], now: datetime) -> None:
        """Remember what was accepted, spent and rejected."""
        ...

    async def count_refusals(self, added: Mapping[datetime, int]) -> dict[datetime, int]:
        """Add refusals to their minutes; return how many each of these had before."""
        ...

    async def forget_refusals(self, before: datetime) -> None:
        """Forget how many were refused in minutes `before` this."""
        ...

    async def forget_uses(self, now: datetime, most: int) -> int:
        """Forget at most `most` single uses whose tokens are refused by now for their age; return how many."""
        ...
