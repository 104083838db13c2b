"""A batch is read by turns; gently, the others have as much time, up to a bound."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from flux_common.kernel.clock import FixedClock
from flux_ingest.handlers.pauses import BREATH_S, GENTLE_BREATH_S, GENTLE_PAUSES_S, Pauses


def paused(monkeypatch: pytest.MonkeyPatch, record_s: float, records: int, *, gently: bool) -> list[float]:
    """Return the pauses between so many records that take so long each."""
    clock, pauses = FixedClock(datetime(2026, 1, 1, tzinfo=UTC)), list[float]()

    async def sleep(seconds: float) -> None:
        pauses.append(round(seconds, 6))
        clock.ticks += seconds

    async def read() -> None:
        between = Pauses(clock, gently=gently)
        for _ in range(records):
            clock.ticks += record_s
            await between.between()

    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(read())
    return pauses


def test_others_get_their_turn_when_records_took_a_breath(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is waited for longer than that."""
    assert paused(monkeypatch, BREATH_S / 2, 6, gently=False) == [0.0, 0.0, 0.0]


def test_a_gentle_reader_pauses_as_long_as_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortest records gather first: a timer is no finer than a millisecond."""
    assert paused(monkeypatch, GENTLE_BREATH_S / 4, 8, gently=True) == [GENTLE_BREATH_S] * 2


def test_the_pauses_of_a_batch_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound it is read as any other."""
    pauses = paused(monkeypatch, GENTLE_PAUSES_S / 4, 9, gently=True)

    assert (pauses[:4], pauses[-4:]) == ([GENTLE_PAUSES_S / 4] * 4, [0.0] * 4)
