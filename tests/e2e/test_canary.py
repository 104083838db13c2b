"""No token and no refused value stands in a topic, table, log, span or metric; the same search finds what is planted."""

from __future__ import annotations

from flux_devkit.flux import Flux
from flux_devkit.installation import SERVICES
from flux_devkit.proofs.canary import prove


async def test_no_secret_turns_up_anywhere(flux: Flux) -> None:
    """Two runs to their receipts, a command, refusals and dead letters, each with secrets in it."""
    traces = [flux.installation.keys.parent / f"{service}.spans" for service in SERVICES]

    for finding in await prove(flux, traces):
        assert finding.holds, finding.line()
