"""Forgetting single uses whose tokens would be refused for their age anyway, and counts of minutes long gone.

In bounded steps, one agency at a time, each with its fact: nothing disappears unaudited. What is forgotten is kept for
longer than the topic keeps a record that could bring it again (`reading._single_use`). Counts of refusals are no evidence,
so their end is no fact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Final

from flux_common.contracts import canonical
from flux_common.contracts.catalogue import REQUESTS
from flux_common.kernel.clock import Clock, millis
from flux_common.kernel.ids import derived_id
from flux_common.observability.logging import get_logger
from flux_common.postgres.database import Connection, Database
from flux_common.postgres.outbox import insert_outbox
from flux_ingest.handlers.events import EMITTER
from flux_ingest.ports import DecisionStore

log = get_logger(__name__)

ROWS_MAX: Final = 1_000
COUNTS_KEPT: Final = timedelta(milliseconds=REQUESTS.retention_ms) + timedelta(days=1)  # segments live on for a while


class UsesExpiry:
    """One pass over all agencies; several processes may do it at once."""

    def __init__(
        self, database: Database, open_store: Callable[[Connection, str], DecisionStore], clock: Clock
    ) -> None:
        self._database = database
        self._open_store = open_store
        self._clock = clock

    async def run(self, agencies: Iterable[str]) -> int:
        """Forget what is due of `agencies`, and return how much that was. Raises Unavailable."""
        total = 0
        for agency_id in sorted(agencies):
            while (forgotten := await self._step(agency_id)) > 0:
                total += forgotten
        return total

    async def _step(self, agency_id: str) -> int:
        now = self._clock.now()
        async with self._database.transaction({agency_id}) as connection:
            store = self._open_store(connection, agency_id)
            await store.lock()
            await store.forget_refusals(now - COUNTS_KEPT)
            forgotten = await store.forget_uses(now, ROWS_MAX)
            if forgotten:
                what: list[str | int] = ["token-uses.expired", agency_id, millis(now), forgotten]
                fact = EMITTER.fact(
                    agency_id,
                    "token-uses.expired",
                    at=now,
                    event_id=derived_id(["fact", *what]),
                    subject=canonical.encode(what),
                    refs={"count": forgotten},
                )
                await insert_outbox(connection, [fact])
        if forgotten:
            log.info("single uses forgotten", agency_id=agency_id, count=forgotten)
        return forgotten
