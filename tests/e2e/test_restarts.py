"""SIGTERM of each service while runs are under way: it drains, leaves its groups, exits 0, and nothing is lost.

`make prove-deployment` does it twenty times; the oracle reads the installation after this module.
"""

from __future__ import annotations

import pytest

from flux_devkit.flux import Flux
from flux_devkit.installation import SERVICES
from flux_devkit.proofs.restarts import restarted_under_load


@pytest.mark.slow
async def test_each_service_is_restarted_in_the_middle_of_runs(flux: Flux) -> None:
    """One after the other; every run that was accepted completes."""
    seen = await restarted_under_load(flux, times=1)

    assert [stop.service for stop in seen.stops] == list(SERVICES)
    assert {stop.status for stop in seen.stops} == {0}
    assert [stop.service for stop in seen.stops if not stop.unready_at_once] == []
    assert [stop for stop in seen.stops if any(stop.members.values())] == []
    assert set(seen.ends.values()) == {"flux.run.completed.v1"}
