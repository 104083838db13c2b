"""Letting go of what was kept long enough: lines of history first, then ended runs with their items and chains.

Theory. An ended run knows since its end when it expires; history has an age. Both go in bounded steps, one agency at a time
under its row-level security, each step one transaction with its fact: nothing disappears unaudited. What is in work never
goes: an open run's history stays however old it is, and a run that somebody holds (a retry, say) is passed over until the
next time. Every process may try; an agency's steps are taken by one at a time. An outage only delays.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from flux_checkpoint.ports import ExpiryStore
from flux_common.contracts import canonical
from flux_common.contracts.envelope import Outgoing
from flux_common.contracts.outgoing import Emitter
from flux_common.kernel.clock import millis
from flux_common.kernel.errors import Unavailable
from flux_common.kernel.ids import derived_id
from flux_common.kernel.signals import Signal
from flux_common.observability.logging import get_logger
from flux_common.postgres.database import Database
from flux_common.postgres.outbox import insert_outbox

log = get_logger(__name__)

EMITTER: Final = Emitter("checkpoint")
What = Literal["run-events.expired", "runs.expired"]


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long an agency's history is kept, and how much goes in one step."""

    events: Callable[[str], timedelta]
    events_a_step: int = 1_000
    runs_a_step: int = 10  # each with all its items and chains


class Expiry:
    """One pass over all agencies, now and then."""

    def __init__(
        self, database: Database, open_store: Callable[[Any], ExpiryStore], keeping: Keeping, committed: Signal
    ) -> None:
        self._database = database
        self._open_store = open_store
        self._keeping = keeping
        self._committed = committed

    async def run(self, pause: Callable[[], Awaitable[bool]]) -> None:
        """Make a pass after each pause, until a pause says that the process stops."""
        while await pause():
            try:
                await self.make_pass()
            except Unavailable as problem:
                log.warning("what is due has not expired yet", code=problem.code, error=problem.message)

    async def make_pass(self) -> dict[What, int]:
        """Let everything expire that is due, and return how much that was. Raises Unavailable."""
        async with self._database.transaction() as connection:
            agencies = await self._open_store(connection).agencies()
        gone: dict[What, int] = {"run-events.expired": 0, "runs.expired": 0}
        for agency_id in agencies:
            for what in gone:
                while (count := await self._step(agency_id, what)) > 0:
                    gone[what] += count
        return gone

    async def _step(self, agency_id: str, what: What) -> int:
        async with self._database.transaction([agency_id]) as connection:
            store = self._open_store(connection)
            now = await store.begin(agency_id)
            if now is None:
                return 0
            count = await self._expire(store, agency_id, what)
            if count:
                await insert_outbox(connection, [_fact(agency_id, what, now, count)])
        if count:
            self._committed.set()
            log.info("expired", what=what, agency_id=agency_id, count=count)
        return count

    async def _expire(self, store: ExpiryStore, agency_id: str, what: What) -> int:
        if what == "runs.expired":
            return await store.expire_runs(agency_id, self._keeping.runs_a_step)
        return await store.expire_events(agency_id, self._keeping.events(agency_id), self._keeping.events_a_step)


def _fact(agency_id: str, what: What, now: datetime, count: int) -> Outgoing:
    """Return the fact of one step. Steps of an agency follow each other, so its time to the microsecond is its name."""
    subject: list[str | int] = [what, agency_id, millis(now), now.microsecond, count]
    return EMITTER.fact(
        agency_id,
        what,
        at=now,
        event_id=derived_id(["fact", *subject]),
        subject=canonical.encode(subject),
        refs={"count": count},
    )
