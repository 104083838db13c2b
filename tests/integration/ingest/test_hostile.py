"""Every kind of hostile record once, among good requests, on a live ingest: each has its one answer, and the lanes go on.

The same table, ten thousand of them and the clock are `python -m flux_devkit.proofs.hostile`.
"""

from __future__ import annotations

from pathlib import Path

from flux_devkit.oracle import examine_async
from flux_devkit.plugin import ROLE_PASSWORD, PostgresServer
from flux_devkit.proofs.edge import edge
from flux_devkit.proofs.forging import HOST, NEIGHBOUR
from flux_devkit.proofs.hostile import KINDS_MIN, attack, opened, schedule, wrong
from flux_devkit.proofs.hostile_kinds import KINDS
from flux_devkit.servers import Servers

GOOD = 20


async def test_each_kind_has_its_answer(kafka_bootstrap: str, postgres_server: PostgresServer, tmp_path: Path) -> None:
    """One decision or dead letter each, of the kind's code; every good one is accepted; the oracle finds nothing."""
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= KINDS_MIN
    servers = Servers(kafka_bootstrap, postgres_server.dsn)
    async with edge(servers, tmp_path, [HOST, NEIGHBOUR], role_password=ROLE_PASSWORD) as running:
        sent = await attack(running, await opened(running), schedule(1, len(KINDS), GOOD), rate=200)
        report = await examine_async(running.installation, services=frozenset({"ingest"}), quiescent=True)
        amiss, ready = wrong(running, sent), running.service.ready()

    assert {kind.name for kind, _ in sent if kind is not None} == {kind.name for kind in KINDS}
    assert amiss == {}
    assert ready
    report.assert_clean()
