"""What the probes answer, and why.

`/startupz`: every condition that the start-up named was met once. `/readyz`: started, every condition is met now, and
the process does not drain. `/livez`: every loop ticked within `stall_s`; it asks neither Kafka nor PostgreSQL, for a
restart mends neither. While draining only the event loop itself has to tick: its loops are ending. Each answer names
what is wrong in words, so that a person with `curl` needs no log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from flux_common.kernel.clock import Clock

EVENT_LOOP: Final = "event-loop"
ASSEMBLED: Final = "assembled"


@dataclass(slots=True)
class Condition:
    """Something that has to hold for the process to be ready; `why` says what is missing, None that it holds."""

    why: str | None
    met_once: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """A probe's answer."""

    ok: bool
    body: dict[str, Any]

    @property
    def status(self) -> int:
        """Return the HTTP status: 200, or 503 with the reasons in the body."""
        return 200 if self.ok else 503


class Health:
    """The state that probes read. Whoever knows a condition sets it; nobody is asked when a probe comes."""

    def __init__(self, service: str, clock: Clock, stall_s: float) -> None:
        self.service = service
        self.draining = False
        self._clock = clock
        self._stall_s = stall_s
        self._conditions: dict[str, Condition] = {ASSEMBLED: Condition("the service is being put together")}
        self._ticks: dict[str, float] = {}

    def require(self, name: str, why: str = "not reached yet") -> None:
        """Name a condition that has to be met before the process counts as started."""
        self._conditions.setdefault(name, Condition(why))

    def ok(self, name: str) -> None:
        """Say that the condition `name` holds."""
        self._conditions[name] = Condition(None, met_once=True)

    def fail(self, name: str, why: str) -> None:
        """Say that the condition `name` does not hold, and why, in words for an operator."""
        known = self._conditions.get(name)
        self._conditions[name] = Condition(why, met_once=known is not None and known.met_once)

    def tick(self, loop: str = EVENT_LOOP) -> None:
        """Say that `loop` is alive; from the first tick on it has to come again within `stall_s`."""
        self._ticks[loop] = self._clock.monotonic()

    def forget(self, loop: str) -> None:
        """Expect no more ticks of `loop`: it has ended as it should."""
        self._ticks.pop(loop, None)

    def drain(self) -> None:
        """Stop being ready, for good."""
        self.draining = True

    @property
    def started(self) -> bool:
        """Say whether every condition was met once."""
        return all(condition.met_once for condition in self._conditions.values())

    @property
    def ready(self) -> bool:
        """Say whether the process should be given work."""
        return self.started and not self.draining and not self._unmet()

    def livez(self) -> Verdict:
        """Judge whether the process is alive."""
        now = self._clock.monotonic()
        watched = (EVENT_LOOP,) if self.draining else tuple(self._ticks)
        silent = {loop: now - self._ticks[loop] for loop in watched if loop in self._ticks}
        stalled = {
            loop: f"no tick for {seconds:.1f} s; at most {self._stall_s:g} s are legal"
            for loop, seconds in silent.items()
            if seconds > self._stall_s
        }
        return self._verdict("alive", stalled)

    def readyz(self) -> Verdict:
        """Judge whether the process is ready."""
        draining = {"draining": "the process was told to stop"} if self.draining else {}
        return self._verdict("ready", {**draining, **self._unmet()})

    def startupz(self) -> Verdict:
        """Judge whether the process has started."""
        missing = {name: c.why or "" for name, c in self._conditions.items() if not c.met_once}
        return self._verdict("started", missing)

    def _unmet(self) -> dict[str, str]:
        return {name: c.why for name, c in self._conditions.items() if c.why is not None}

    def _verdict(self, word: str, reasons: dict[str, str]) -> Verdict:
        ok = not reasons
        return Verdict(ok, {"service": self.service, "status": word if ok else f"not {word}", "why": reasons})
