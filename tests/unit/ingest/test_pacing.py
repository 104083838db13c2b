"""How gently a lane is worked: by refusals and repetitions, by the agency, and by what its last batch brought."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from flux_common.kernel.positions import TopicPartition
from flux_ingest.handlers.pacing import BITE, MINUTES_KEPT, PRESS_REST_S, Pacing

ONE, OTHER = (TopicPartition("flux.nasa.run.requests.v1", number) for number in (0, 1))
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIMIT = 600


def noted(pacing: Pacing, *, refused: int = 0, repeated: int = 0, tp: TopicPartition = ONE, minute: int = 0) -> bool:
    """Tell of a batch of the agency, long after its minute; say whether its lane is worked gently then."""
    at = NOON + timedelta(minutes=minute)
    later = at + timedelta(hours=1)
    pacing.note(
        tp, "nasa", Counter({at: refused} if refused else {}), Counter({at: repeated} if repeated else {}), LIMIT, later
    )
    assert pacing.rest_s(tp) == (PRESS_REST_S if pacing.gently(tp) else 0.0)
    return pacing.gently(tp)


def test_what_a_minute_may_have_is_worked_like_anything_else() -> None:
    """A producer that sends again what it is not sure of has a minute's limit of it."""
    pacing = Pacing()

    assert not noted(pacing, repeated=LIMIT)
    assert pacing.records_max(ONE) is None


def test_who_repeats_past_the_limit_rests_and_is_read_in_bites() -> None:
    """Over all lanes of the agency; each repetition is told, so only a pace bounds what it costs. Until a batch has none."""
    pacing = Pacing()
    noted(pacing, repeated=LIMIT)

    assert noted(pacing, repeated=1, tp=OTHER)
    assert (pacing.records_max(OTHER), pacing.records_max(ONE)) == (BITE, None)
    assert not noted(pacing, tp=OTHER)
    assert pacing.records_max(OTHER) is None


def test_each_minute_and_each_agency_has_its_own_count() -> None:
    """What one repeats presses for nobody else, and not in the next minute; bites end with a batch that repeats nothing."""
    pacing = Pacing()
    noted(pacing, repeated=2 * LIMIT)
    pacing.note(OTHER, "loc", Counter(), Counter({NOON: LIMIT}), LIMIT, NOON + timedelta(hours=1))

    assert not noted(pacing, repeated=LIMIT, minute=1)
    assert (pacing.gently(OTHER), pacing.records_max(OTHER), pacing.records_max(ONE)) == (False, None, BITE)


def test_refusals_and_repetitions_add_up_to_a_press_and_refusals_are_read_in_large_batches() -> None:
    """Refused ones share one answer a batch: the fewer batches the better."""
    pacing = Pacing()

    assert not noted(pacing, refused=LIMIT // 2)
    assert noted(pacing, refused=LIMIT // 2 + 1, repeated=LIMIT // 2)
    assert pacing.records_max(ONE) is None


def test_who_may_have_much_is_read_in_larger_bites() -> None:
    """A bite is what the limit allows in the time of a rest, where that is more."""
    pacing = Pacing()
    pacing.note(ONE, "nasa", Counter(), Counter({NOON: 240_001}), 240_000, NOON)

    assert pacing.records_max(ONE) == 1_000


def test_few_minutes_are_kept() -> None:
    """A backlog of a week has ten thousand."""
    pacing = Pacing()
    for minute in range(3 * MINUTES_KEPT):
        noted(pacing, repeated=1, minute=minute)

    assert pacing.minutes("nasa") == MINUTES_KEPT


def test_a_backlogs_own_minutes_are_counted_however_many_newer_ones_there_are() -> None:
    """A lane far behind its siblings presses like any other: what was just counted is not the first to be forgotten."""
    pacing = Pacing()
    for minute in range(1, MINUTES_KEPT + 5):
        noted(pacing, repeated=1, tp=OTHER, minute=minute)
    noted(pacing, repeated=LIMIT)

    assert noted(pacing, repeated=1)
    assert pacing.minutes("nasa") <= MINUTES_KEPT + 1
