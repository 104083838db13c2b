"""The oracle: reads the input topics, the tables and the output topics of one installation and asserts I1 to I9.

    report = examine(installation)                                  # at any moment, also of a busy or a broken one
    examine(installation, quiescent=True, settled=True).assert_clean()    # once all work is done

Theory. An invariant is only worth what can find it broken, so each is checked from the outside: with its own queries, its
own Kafka client and its own arithmetic, both ways (each effect has its row, each row its effect). One module per
invariant; a check is a function from the gathered world to what is wrong. Only *expiry* is not understood: rows that
retention has deleted look like rows that were lost, so the oracle is for installations younger than their retention.
"""

from __future__ import annotations

from flux_devkit.oracle.examination import Options, examine, examine_async, installation_at, judge
from flux_devkit.oracle.gather import Target, gather
from flux_devkit.oracle.report import INVARIANTS, Report, Violation
from flux_devkit.oracle.world import World

__all__ = [
    "INVARIANTS",
    "Options",
    "Report",
    "Target",
    "Violation",
    "World",
    "examine",
    "examine_async",
    "gather",
    "installation_at",
    "judge",
]
