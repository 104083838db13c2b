"""A key is rotated while requests come in: the proof of `flux_devkit.proofs.rotation`, lean and without its stop-watch."""

from __future__ import annotations

from pathlib import Path

from flux_devkit.plugin import ROLE_PASSWORD, PostgresServer
from flux_devkit.proofs.rotation import Load, rotate_under_load
from flux_devkit.servers import Servers


async def test_a_rotation_refuses_no_good_request_and_ends_the_old_key(
    kafka_bootstrap: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """Every good request is accepted; the old key's, fresh and remembered, are refused as of an unknown key."""
    servers, load = Servers(kafka_bootstrap, postgres_server.dsn), Load(rate=10, act_s=1, refresh_s=0.5)
    seen = await rotate_under_load(servers, tmp_path, load, role_password=ROLE_PASSWORD)

    assert (dict(seen.good_refused), seen.good_sent > 50) == ({}, True)
    assert seen.revoked_refused.keys() == {"KEY_UNKNOWN"}
    assert seen.revoked_refused["KEY_UNKNOWN"] > seen.revoked_sent / 4
