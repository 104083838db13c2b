"""The requests lane: each record becomes one decision, and each batch one commit.

Tokens are proven and bodies read before the transaction begins, for that takes longer than the database may wait. Inside
it: let the agency wait if its seal lags, lock the agency, look up what its records touch, decide (a pure fold), brake a
flood of refusals, write. What was read does not depend on what is looked up, so nothing is read twice. What the database
refuses, or nobody can read, is put aside.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final

from flux_common.auth import Agency, Trust, VerifiedTokens
from flux_common.contracts.catalogue import REQUESTS
from flux_common.contracts.intake import STANDARD, IntakeLimits
from flux_common.contracts.types import AGENCY_PATTERN
from flux_common.kernel.clock import Clock
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import FluxError, InvariantBroken
from flux_common.kernel.positions import LaneBatch, TopicPartition
from flux_common.observability import metrics
from flux_common.observability.logging import get_logger
from flux_common.postgres.lanes import Advance, PostgresLanes
from flux_common.postgres.outbox import DeadLetter
from flux_ingest.domain.brake import brake, minute_of, refusals, repetitions
from flux_ingest.domain.decide import decide
from flux_ingest.domain.model import Accepted, DeadLettered, Decision, Flooded, Redelivered, Rejected, Repeated
from flux_ingest.handlers.events import Telling
from flux_ingest.handlers.flooding import of_the_flood
from flux_ingest.handlers.pacing import Pacing
from flux_ingest.handlers.pauses import Pauses
from flux_ingest.handlers.reading import OnUnknownKey, Reader, Reading
from flux_ingest.handlers.sealing import SealGate
from flux_ingest.ports import DecisionStore

log = get_logger(__name__)

TOPICS: Final = re.escape(REQUESTS.name).replace("<agency>", f"({AGENCY_PATTERN.strip('^$')})")
_TOPIC: Final = re.compile(TOPICS)

OpenStore = Callable[[Advance, str], DecisionStore]
Judge = Callable[[DecisionStore], Awaitable[list[Decision]]]


def agency_of(topic: str) -> str | None:
    """Return the agency that a requests topic belongs to; None for any other topic."""
    match = _TOPIC.fullmatch(topic)
    return match.group(1) if match is not None else None


class RequestsHandler:
    """Applies batches of the requests lanes.

    `trust` returns the registry and keys of the moment. `gate` has an agency wait for its seal.
    `on_unknown_key` hears of an issuer that a token names a key of it that is not known here: perhaps it has a new one.
    """

    def __init__(
        self,
        lanes: PostgresLanes,
        open_store: OpenStore,
        trust: Callable[[], Trust],
        clock: Clock,
        gate: SealGate,
        on_unknown_key: OnUnknownKey = lambda _iss: None,
        limits: IntakeLimits = STANDARD,
    ) -> None:
        self._lanes = lanes
        self._open_store = open_store
        self._trust = trust
        self._clock = clock
        self._gate = gate
        self._on_unknown_key = on_unknown_key
        self._limits = limits
        self._memory = VerifiedTokens()
        self._pacing = Pacing()

    async def apply(self, batch: LaneBatch) -> float:
        """Decide on a batch in one transaction; the lanes of an agency that presses rest after it."""
        trust = self._trust()
        agency = _registered(batch, trust)
        readings = await self._read(batch, agency, trust)
        findings = [reading.finding for reading in readings]

        async def judge(store: DecisionStore) -> list[Decision]:
            return decide(findings, await store.known(batch, findings))

        return await self._settle(batch, agency, readings, judge)

    def records_max(self, tp: TopicPartition) -> int | None:
        """Return how many records a lane's next batch may have; None if that is not bounded here."""
        return self._pacing.records_max(tp)

    async def refuse(self, batch: LaneBatch, problem: FluxError) -> float:
        """Put the records of `batch` aside: their bytes, or the database, cannot take them. Floods of them are braked, too."""
        code = Code[problem.code]
        put_aside: list[Decision] = [DeadLettered(record.position, code) for record in batch.records]
        readings = [Reading(record, DeadLettered(record.position, code)) for record in batch.records]

        async def judge(_store: DecisionStore) -> list[Decision]:
            return put_aside

        return await self._settle(batch, _registered(batch, self._trust()), readings, judge)

    async def _settle(self, batch: LaneBatch, agency: Agency, readings: Sequence[Reading], judge: Judge) -> float:
        """Write what `judge` says of a batch in one transaction, count it, and return how long the lane rests."""
        async with self._lanes.advance(batch, {agency.agency_id}) as advance:
            self._gate.check(agency, advance.now)
            store = self._open_store(advance, agency.agency_id)
            await store.lock()
            judged = await judge(store)
            minutes = [minute_of(record.appended_at or advance.now) for record in batch.records]
            refused, decisions = await _braked(store, agency, judged, minutes)
            await store.save(decisions, advance.now)
            _tell(advance, agency, readings, decisions)
        repeated, limit = repetitions(decisions, minutes), agency.rejects_per_minute
        self._pacing.note(batch.lane.tp, agency.agency_id, refused, repeated, limit, advance.now)
        self._report(batch, agency, decisions)
        return self._pacing.rest_s(batch.lane.tp)

    async def _read(self, batch: LaneBatch, agency: Agency, trust: Trust) -> list[Reading]:
        now = self._clock.now()
        reader = Reader(agency.agency_id, trust, self._memory, now, self._limits, self._on_unknown_key)
        pauses = Pauses(self._clock, gently=self._pacing.gently(batch.lane.tp))
        readings: list[Reading] = []
        for record in batch.records:
            readings.append(reader.read(record))
            await pauses.between()
        return readings

    def _report(self, batch: LaneBatch, agency: Agency, decisions: Sequence[Decision]) -> None:
        """Count and log what was committed."""
        outcomes = Counter(_outcome(decision) for decision in decisions)
        for (outcome, code), number in outcomes.items():
            metrics.decisions.labels(outcome, code).inc(number)
        for decision in decisions:
            if isinstance(decision, DeadLettered):
                metrics.dead_letters.labels(REQUESTS.name, decision.code).inc()
        refused = [one.refused if isinstance(one, Flooded) else one for one in decisions]
        for one in refused:
            if isinstance(one, Rejected) and not one.proven:
                metrics.verification_failures.labels(one.code).inc()
        oldest = batch.records[0].appended_at
        if oldest is not None:
            metrics.decision_latency_seconds.observe(max(0.0, (self._clock.now() - oldest).total_seconds()))
        said = {f"{outcome} {code}".strip(): number for (outcome, code), number in sorted(outcomes.items())}
        log.info("decided", agency_id=agency.agency_id, lane=str(batch.lane.tp), outcomes=said)


def _registered(batch: LaneBatch, trust: Trust) -> Agency:
    """Return the agency of a batch's topic. Agencies are never removed, and a lane of no agency is never taken."""
    agency = trust.registry.agency(agency_of(batch.lane.tp.topic) or "")
    if agency is None:
        raise InvariantBroken(Code.AGENCY_NOT_FOUND, f"{batch.lane.tp} is read, yet its agency is not registered")
    return agency


async def _braked(
    store: DecisionStore, agency: Agency, decisions: list[Decision], minutes: Sequence[datetime]
) -> tuple[Counter[datetime], list[Decision]]:
    """Count the refusals of a batch, and let those past the agency's limit share one answer; return what its minutes have."""
    added = refusals(decisions, minutes)
    if not added:
        return added, decisions
    before = await store.count_refusals(added)
    return added + Counter(before), brake(decisions, minutes, before, agency.rejects_per_minute)


def _tell(advance: Advance, agency: Agency, readings: Sequence[Reading], decisions: Sequence[Decision]) -> None:
    """Write every decision's events, and book in the ledger what had no effect."""
    telling = Telling(agency, advance.batch.lane.topic_id, advance.now)
    advance.emit(telling.of_the_unproven(decisions))
    advance.emit(of_the_flood(agency.agency_id, telling.topic_id, telling.at, decisions))
    for reading, decision in zip(readings, decisions, strict=True):
        advance.emit(telling.of(reading, decision))
        match decision:
            case Repeated(asked):
                advance.duplicate(reading.record, ref=str(asked.run_id))
            case Redelivered(_, code):
                advance.duplicate(reading.record, code=code)
            case DeadLettered(_, code):
                advance.bury(reading.record, DeadLetter.of(agency.agency_id, reading.record, code))


def _outcome(decision: Decision) -> tuple[str, str]:
    match decision:
        case Accepted():
            return "accepted", ""
        case Repeated():
            return "repeated", ""
        case Rejected():
            return "rejected", decision.code
        case DeadLettered(_, code):
            return "dead_lettered", code
        case Redelivered():
            return "redelivered", ""
        case Flooded():
            return "flooded", Code.INTAKE_FLOODED
