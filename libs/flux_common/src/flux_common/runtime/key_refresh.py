"""Issuers' key sets, fetched in the background and never by whoever verifies.

Each issuer whose key set is a URL has a schedule of its own, so that one identity provider that is slow or down delays
no other. What must hold: of one issuer, one fetch is under way at most; a set is taken whole or not at all
(`RegistrySource.publish`); a failure changes nothing but the schedule, and what is not confirmed goes stale in the end.

| an issuer's schedule | begins when | next fetch |
|---|---|---|
| due | it is new, or its time has come | now, if one of the few places is free |
| fetching | it was due | when this one has ended |
| good | the last fetch brought a good set | after at most `refresh_s`, jittered |
| failing | it brought none, or a bad one | after the next pause of an exponential back-off, jittered |

A token with an unknown `kid` may make a *good* schedule due, for the key may be new. Anybody can invent a `kid`, so
each issuer has a bucket of such hurries, and a *failing* schedule is never hurried.

A key that two issuers have is told as long as it is so, with both their names: a gauge, and an error when it begins.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from flux_common.auth import ConfigurationRefused, Registry, RegistrySource
from flux_common.auth.fetching import Fetcher, FetchFailed
from flux_common.auth.key_url import KeyUrl
from flux_common.auth.keyset import SharedKey
from flux_common.auth.source import url_of
from flux_common.kernel.clock import Clock
from flux_common.observability import metrics
from flux_common.observability.logging import get_logger
from flux_common.runtime.retry import Backoff, jitter, jittered

FETCHES_AT_ONCE: Final = 16
TICK_S: Final = 0.2
BACKOFF_FIRST_S: Final = 1.0
HURRIES_MAX: Final = 3
HURRY_EVERY_S: Final = 20.0
SAID_AGAIN_EVERY: Final = 12

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often key sets are fetched: the longest pause after a good fetch, and after failures."""

    refresh_s: float = 60.0
    backoff_max_s: float = 60.0


class Outcome(StrEnum):
    """What a fetch came to."""

    CHANGED = "changed"
    SAME = "same"
    REFUSED = "refused"
    FAILED = "failed"

    @property
    def good(self) -> bool:
        """Return whether the set is confirmed."""
        return self in (Outcome.CHANGED, Outcome.SAME)


class Bucket:
    """Hurries that are left: at most `HURRIES_MAX`, one more every `HURRY_EVERY_S`."""

    def __init__(self, now_s: float) -> None:
        self._left = float(HURRIES_MAX)
        self._at_s = now_s

    def take(self, now_s: float) -> bool:
        """Take one if there is one; return whether there was."""
        self._left = min(HURRIES_MAX, self._left + (now_s - self._at_s) / HURRY_EVERY_S)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(slots=True)
class _Schedule:
    """When an issuer's set is fetched next, and what the last fetch came to."""

    url: KeyUrl
    due_s: float
    bucket: Bucket
    backoff: Backoff
    said: str = ""
    fetching: bool = False


class KeyRefresher:
    """Keeps the key sets of `source` current that issuers publish at URLs.

    `run` is the loop of a service. `start_due` is one step of it, for the first fetch of all and for tests.
    """

    def __init__(
        self,
        source: RegistrySource,
        fetcher: Fetcher,
        clock: Clock,
        pace: Pace | None = None,
        draw: Callable[[], float] = jitter,
    ) -> None:
        self._source = source
        self._fetcher = fetcher
        self._clock = clock
        self._pace = pace or Pace()
        self._draw = draw
        self._registry: Registry | None = None
        self._schedules: dict[str, _Schedule] = {}
        self._places = asyncio.Semaphore(FETCHES_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._shared: tuple[SharedKey, ...] = ()

    async def run(self, pause: Callable[[float], Awaitable[bool]]) -> None:
        """Fetch what is due until `pause` says to stop."""
        try:
            while await pause(TICK_S):
                self.start_due()
                self._tell_ages()
                self._tell_shared()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def first(self) -> None:
        """Fetch every set once before anybody is judged by them; whoever does not answer in time delays no start."""
        if tasks := self.start_due():
            await asyncio.wait(tasks, timeout=2 * self._fetcher.timeout_s)

    def start_due(self) -> list[asyncio.Task[None]]:
        """Begin the fetches that are due, and return them."""
        self._follow_registry()
        now_s = self._clock.monotonic()
        due = [(iss, one) for iss, one in self._schedules.items() if not one.fetching and one.due_s <= now_s]
        started = [asyncio.create_task(self._fetch(iss, one), name=f"keys of {iss}") for iss, one in due]
        for (_, one), task in zip(due, started, strict=True):
            one.fetching = True
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return started

    def hurry(self, iss: str) -> None:
        """Hear that a token named a key that its issuer does not have here."""
        one, now_s = self._schedules.get(iss), self._clock.monotonic()
        if one is None or one.fetching or one.backoff.tries or one.due_s <= now_s:
            return
        if one.bucket.take(now_s):
            one.due_s = now_s

    def _follow_registry(self) -> None:
        """Have a schedule for each issuer with a URL, a new one where the URL is another, and none for those gone."""
        registry, now_s = self._source.trust.registry, self._clock.monotonic()
        if registry is self._registry:
            return
        self._registry = registry
        urls = {iss: url for iss in registry.issuers if (url := url_of(registry, iss)) is not None}
        kept = {iss: one for iss, one in self._schedules.items() if urls.get(iss) == one.url}
        backoff_max_s = self._pace.backoff_max_s
        self._schedules = kept | {
            iss: _Schedule(url, now_s, Bucket(now_s), Backoff(BACKOFF_FIRST_S, backoff_max_s, self._draw))
            for iss, url in urls.items()
            if iss not in kept
        }

    async def _fetch(self, iss: str, one: _Schedule) -> None:
        async with self._places:
            asked_at, asked_s = self._clock.now(), self._clock.monotonic()
            outcome, why = await self._outcome(iss, one.url, asked_at)
        metrics.key_fetches.labels(iss, outcome).inc()
        one.fetching = False
        if outcome.good:
            if one.said:
                log.info("key set is refreshed again", issuer=iss, url=str(one.url))
            one.said = ""
            one.backoff.reset()
            one.due_s = asked_s + jittered(self._pace.refresh_s, self._draw)
            return
        one.due_s = self._clock.monotonic() + one.backoff.next_s()
        if why != one.said or one.backoff.tries % SAID_AGAIN_EVERY == 0:
            log.error("key set not refreshed; the old one stands", issuer=iss, url=str(one.url), why=why)
        one.said = why

    async def _outcome(self, iss: str, url: KeyUrl, asked_at: datetime) -> tuple[Outcome, str]:
        try:
            data = await self._fetcher.fetch(url)
            if not self._source.publish(iss, url, data, asked_at):
                return Outcome.SAME, ""
        except FetchFailed as failed:
            return Outcome.FAILED, f"{failed}; {failed.next_step}"
        except ConfigurationRefused as refused:
            return Outcome.REFUSED, refused.message
        except Exception as error:  # noqa: BLE001 - whatever an issuer publishes, it must not end the process
            return Outcome.REFUSED, type(error).__name__
        log.info("key set taken", issuer=iss, keys=len(self._source.trust.keys.of(iss).keys))
        return Outcome.CHANGED, ""

    def _tell_ages(self) -> None:
        """Show the age of each set, without end where one was never had."""
        now, sets = self._clock.now(), self._source.trust.keys.sets
        for iss in self._schedules:
            age_s = (now - sets[iss].confirmed_at).total_seconds() if iss in sets else math.inf
            metrics.keys_age_seconds.labels(iss).set(age_s)

    def _tell_shared(self) -> None:
        """Show each key that two issuers have, and say so once: both are used, and one of them should not have it."""
        shared, before = self._source.trust.keys.shared, self._shared
        if shared == before:
            return
        self._shared = shared
        metrics.keys_shared.clear()
        for one in shared:
            metrics.keys_shared.labels(one.issuer, one.other).inc()
            if one not in before:
                log.error("two issuers have the same key", issuer=one.issuer, other=one.other, kid=one.kid)
        if not shared:
            log.info("no two issuers have the same key any more")
