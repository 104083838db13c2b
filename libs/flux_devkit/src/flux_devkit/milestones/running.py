"""The running half of `deployment`: images' environments, probes, drains, start order, roll-outs, restarts.

The environments and the restarts have figures of their own; the rest are the suites that carry the proofs. About thirty
minutes on two cores, of which the eighty restarts take most.
"""

from __future__ import annotations

from typing import Final

from flux_devkit.finding import Item
from flux_devkit.proofs.environments import environments
from flux_devkit.proofs.restarts import restarts
from flux_devkit.suites import passing

PROBES: Final = "tests/e2e/test_probes.py"

ITEMS: Final[dict[str, Item]] = {
    "environments": environments,
    "waiting": passing(
        "started before database, roles, schema, Kafka or topics: waits, says for what, becomes ready",
        f"{PROBES}::test_a_service_waits_for_what_is_not_there_and_says_so",
    ),
    "probes": passing(
        "outages and a rebalance with runs under way, nothing lost; a poll that hangs, a frozen loop, a grace that is over",
        f"{PROBES}::test_an_outage_is_not_ready_and_alive_and_over_when_it_is_over",
        f"{PROBES}::test_a_rebalance_does_not_flip_readiness",
        f"{PROBES}::test_a_poll_that_hangs_fails_livez",
        "tests/integration/common/test_service_process.py",
    ),
    "migrations": passing(
        "jobs twice at once; this release on the schema before it and on the one after it",
        "tests/integration/common/test_jobs.py",
        "tests/integration/common/postgres/test_migrations.py",
        "tests/e2e/test_roll_out.py",
    ),
    "restarts": restarts,
}
