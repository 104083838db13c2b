"""A token confined to a key, from the SDK and the command line through a running ingest to its decision and its fact."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from flux_client.development import DevelopmentAgency
from flux_client.keys import SigningKey, create_key, generate_key, load_key, mint_proof, private_key_path
from flux_client.producer import Decision, FluxProducer
from flux_client.tokens import IssuerKey, Record, Right, authorization
from flux_common.contracts.catalogue import AUDIT
from flux_common.contracts.envelope import Headers
from flux_common.kafka.follow import TopicFollower
from flux_common.kernel.clock import SystemClock
from flux_devkit.installation import Installation
from flux_devkit.plugin import ROLE_PASSWORD, Database, PostgresServer
from flux_devkit.servers import Servers
from flux_devkit.services import Services

AGENCY = DevelopmentAgency("nasa", "NASA", binding_required=True, reuse_unbound_tokens=False)


@pytest.fixture
async def installation(
    kafka_bootstrap: str, postgres_server: PostgresServer, database: Database, topic_prefix: str, tmp_path: Path
) -> AsyncIterator[Installation]:
    """A running ingest whose one agency requires tokens that are bound."""
    servers = Servers(kafka_bootstrap, postgres_server.dsn)
    made = Installation(
        servers, tmp_path / "keys", tmp_path / "data", database.name, topic_prefix, [AGENCY],
        role_password=ROLE_PASSWORD,
    )  # fmt: skip
    await made.prepare()
    services = Services(made.services(["ingest"]), tmp_path)
    await asyncio.to_thread(services.start)
    yield made
    await asyncio.to_thread(services.stop)


def request(name: str) -> dict[str, Any]:
    """Return a good request."""
    uri = {"uri": "memory:///in/"}
    return {
        "request_id": name, "source": uri, "content_type": "text", "use_case": "research", "destination": uri
    }  # fmt: skip


def code(decision: Decision) -> str | None:
    """Return the code of a refusal; None of an acceptance."""
    return None if decision.accepted else str(getattr(decision.event.body, "code", ""))


async def bindings(made: Installation, count: int) -> dict[str, str]:
    """Return how each accepted request was bound, as its fact says, once there are `count`."""
    follower = TopicFollower(made.kafka(), [AUDIT.name])
    await follower.open()
    found: dict[str, str] = {}
    try:
        async for batch in follower.follow():
            for fact in (json.loads(record.value or b"{}") for record in batch):
                if fact["type"] == "request.accepted":
                    found[fact["refs"]["request_id"]] = fact["actor"]["binding"]
            if len(found) >= count:
                break
    finally:
        await follower.close()
    return found


async def submit_by_command(made: Installation, *arguments: str) -> int | None:
    """Run `flux-etl submit --decision` as its own process; return its exit status."""
    env = made.environment("ingest") | {"FLUX_AGENCY": "nasa", "FLUX_DEV_ENV": "", "PATH": os.environ["PATH"]}
    command = [sys.executable, "-m", "flux_client", "submit", "--decision", *arguments]
    process = await asyncio.create_subprocess_exec(*command, env=env, stdout=asyncio.subprocess.DEVNULL)
    return await process.wait()


class Stolen(Right):
    """A confined token in the hand of somebody without its key: the client itself would refuse to send it."""

    def __init__(self, token: str, key: SigningKey | None) -> None:
        self._shown = token
        self._with = key

    def headers(self, record: Record, at: datetime) -> Headers:
        """Return the token, with no proof or one by another key."""
        if self._with is None:
            return authorization(self._shown)
        proof = mint_proof(
            self._with,
            self._shown,
            topic=record.topic,
            record_key=record.key,
            value=record.value,
            jti="1",
            issued_at=at,
        )
        return [*authorization(self._shown), ("flux-proof", proof.encode())]


async def stolen(producer: FluxProducer, token: str) -> list[str | None]:
    """Return what becomes of requests by a stolen token, without a proof and with a proof by another key."""
    codes = []
    for name, key in (("s-1", None), ("s-2", generate_key())):
        producer._right = Stolen(token, key)
        codes.append(code(await producer.submit_and_wait(request(name))))
    return codes


async def test_a_proof_binds_a_token_to_each_request(installation: Installation, tmp_path: Path) -> None:
    """One token and its key serve many requests; the token alone, and another's proof, serve none."""
    issuer = IssuerKey(load_key(private_key_path(installation.keys, "nasa")))
    bearer = create_key(tmp_path / "proof.pem")
    token, kafka = issuer.token("nasa", SystemClock().now(), proof_key=bearer), installation.kafka()
    async with FluxProducer("nasa", kafka, token=token, proof_key=bearer) as producer:
        first, second = [await producer.submit_and_wait(request(name)) for name in ("r-1", "r-2")]
        again = await producer.submit_and_wait(request("r-1"))
        cancelled = await producer.command_and_wait("r-1", "cancel", "enough")
    async with FluxProducer("nasa", kafka, key=issuer) as producer:
        claimed = await producer.submit_and_wait(request("r-3"))
    async with FluxProducer("nasa", kafka, token=issuer.token("nasa", SystemClock().now())) as producer:
        unbound = await producer.submit_and_wait(request("r-4"))
        robbed = await stolen(producer, token)
    (tmp_path / "token").write_text(token)
    (tmp_path / "run.json").write_text(json.dumps(request("r-5")))
    named = {"-f": "run.json", "--token-file": "token", "--proof-key": "proof.pem"}
    options = [word for option, file in named.items() for word in (option, str(tmp_path / file))]
    status = await submit_by_command(installation, *options)

    assert [code(one) for one in (first, second, again, cancelled, claimed)] == [None] * 5
    assert again.repeated
    assert code(unbound) == "BINDING_REQUIRED"
    assert robbed == ["BINDING_REQUIRED", "BINDING_MISMATCH"]
    assert status == 0
    assert await bindings(installation, 4) == {"r-1": "proof", "r-2": "proof", "r-3": "claim", "r-5": "proof"}
