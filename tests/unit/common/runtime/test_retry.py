"""Back-off: how long the pauses are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flux_common.runtime.retry import Backoff, jittered

draws = st.floats(min_value=0, max_value=1, exclude_max=True)


def test_pauses_double_up_to_the_ceiling() -> None:
    """Without jitter's cut the pauses are first, twice, four times …, and never above the maximum."""
    backoff = Backoff(0.1, 1.0, draw=lambda: 1.0)

    assert [round(backoff.next_s(), 3) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_a_success_begins_anew() -> None:
    """After a reset the first pause comes again."""
    backoff = Backoff(0.1, 1.0, draw=lambda: 1.0)
    backoff.next_s()
    backoff.next_s()
    backoff.reset()

    assert (backoff.next_s(), backoff.tries) == (0.1, 1)


@given(draw=draws, tries=st.integers(0, 5_000))
def test_a_pause_lies_between_half_its_ceiling_and_all_of_it(draw: float, tries: int) -> None:
    """Jitter never makes a pause vanish nor pass the maximum, however often one tried."""
    backoff = Backoff(0.1, 5.0, draw=lambda: draw)
    backoff.tries = tries
    ceiling = min(5.0, 0.1 * 2 ** min(tries, 32))

    assert ceiling / 2 <= backoff.next_s() <= ceiling
    assert 1.0 <= jittered(2.0, lambda: draw) <= 2.0
