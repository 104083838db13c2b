"""Runs that are under way while something is stopped, killed or moved: for tests and proofs.

`load` asks for runs over and over. `held_midway` catches one run in its middle and holds it there.

Theory of the hold. Checkpoint writes `flux.checkpoints` for each slice that it applies and each item that it hands out.
While another session holds that table against writers, no run gets on: what was read then is what is there, for as long
as the table is held. A *wide* run has more partitions than its window, so its last item is handed out only after an earlier
one was applied. Held, read and let go again without a pause, such a run cannot go from nothing to everything unseen:
between two looks goes only what had waited for the table, and none of that can apply an item that is not handed out yet.
A service that waits longer than its lock time-out (5 s) tries again; nothing is lost by that.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

import asyncpg
from asyncpg.transaction import Transaction

from flux_common.postgres.queries import Queries
from flux_devkit.asking import a_request, ask, ends, texts
from flux_devkit.errors import DevkitError
from flux_devkit.flux import Flux

AGENCIES: Final = ("national-archives", "nasa")
WIDE_OBJECTS: Final = 40  # each a partition of its own; the registry's run_window is 32
WAIT_SECONDS: Final = 60.0
_SQL: Final = Queries.load("flux_devkit", "underway.sql")


@asynccontextmanager
async def load(flux: Flux, agencies: Sequence[str] = AGENCIES, *, at_once: int = 2) -> AsyncIterator[dict[str, str]]:
    """Let each agency ask for so many runs at once while the block goes on, over and over, and at least once.

    What is given has, when the block is over, the type of the last event of each run that was accepted.
    """
    over, found = asyncio.Event(), dict[str, str]()
    asking = [asyncio.create_task(_rounds(flux, agency, at_once, over, found)) for agency in agencies]
    try:
        yield found
    finally:
        over.set()
        await asyncio.gather(*asking)


async def _rounds(flux: Flux, agency: str, at_once: int, over: asyncio.Event, found: dict[str, str]) -> None:
    source = texts(flux.folder("archives", agency, "load"), 40)
    while True:
        names = [f"load-{secrets.token_hex(4)}" for _ in range(at_once)]
        requests = [a_request(flux, agency, name, source, partitioning={"objects_max": 6}) for name in names]
        decisions = await ask(flux, agency, *requests)
        ended = await ends(flux, agency, {decision.submitted.run_id for decision in decisions})
        found |= {run: end.type for run, end in ended.items()}
        if over.is_set():
            return


def a_wide_request(flux: Flux, agency: str, request_id: str) -> dict[str, Any]:
    """Return the request for a run that `held_midway` cannot miss."""
    source = texts(flux.folder("archives", agency, "wide"), WIDE_OBJECTS)
    return a_request(flux, agency, request_id, source, partitioning={"objects_max": 1})


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    state: str
    read: int
    objects: int

    @property
    def midway(self) -> bool:
        """Whether it runs, and some of it was read, and some not."""
        return self.state == "RUNNING" and 0 < self.read < self.objects


class Holding:
    """An administrator's session, by which a table is held against writers."""

    def __init__(self, session: asyncpg.Connection[asyncpg.Record]) -> None:
        self.session = session
        self._held: Transaction | None = None

    async def hold(self, what: Literal["checkpoints", "requests"]) -> None:
        """Hold the table of all items or of all decided requests, once who writes to it just now is done."""
        self._held = self.session.transaction()
        await self._held.start()
        await self.session.execute(_SQL[f"hold_{what}"])

    async def let_go(self) -> None:
        """Let go of the table."""
        if self._held is not None:
            await self._held.rollback()

    async def waits(self, login: str) -> None:
        """Return when a session of `login` waits for a lock. Raises TimeoutError after a minute without."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not await self.session.fetchval(_SQL["waiting"], login):
                await self.session.execute(_SQL["look_anew"])
                await asyncio.sleep(0.02)

    async def progress(self, run_id: str) -> Progress | None:
        """Return how far a run is; None before it was admitted."""
        row = await self.session.fetchrow(_SQL["progress"], run_id)
        return Progress(row["state"], row["read"], row["objects"]) if row else None


@asynccontextmanager
async def holding(flux: Flux) -> AsyncIterator[Holding]:
    """Give a session that lets go at the end; the database may be stopped before."""
    session = await asyncpg.connect(flux.installation.admin_dsn)
    try:
        yield Holding(session)
    finally:
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await session.close()


@asynccontextmanager
async def held_midway(flux: Flux, run_id: str) -> AsyncIterator[Holding]:
    """Wait until a wide run is midway, and hold every run where it is while the block goes on.

    Raises:
        DevkitError: the run was seen before its middle and behind it, and not in it: it is not wide.
        TimeoutError: it did not come so far within a minute.
    """
    async with holding(flux) as held:
        async with asyncio.timeout(WAIT_SECONDS):
            await _catch(held, run_id)
        yield held


async def _catch(held: Holding, run_id: str) -> None:
    """Hold, look, and let go, until the run is midway; then return with the table held."""
    while True:
        await held.hold("checkpoints")
        seen = await held.progress(run_id)
        if seen is not None and seen.midway:
            return
        if seen is not None and seen.read > 0:
            raise DevkitError(f"the run was not caught midway: {seen}")
        await held.let_go()
        if seen is None or seen.state != "RUNNING":
            await asyncio.sleep(0.02)
