"""`python -m flux_devkit.proofs.canary`: no token and no refused value turns up anywhere, and a planted one would be found.

A whole Flux runs: one request is accepted and worked to its receipt; others are refused, each with a marked value at another
place of the way in (schema, JSON, terms, token). Then everything that was written is searched (flux_devkit.canary). The values
of an accepted request are no secret: Flux carries them to the worker. At the end a slice of a secret is planted in a topic, a
table, a log and a file of spans, and the same search must find all four. About half a minute.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined] # re-exported without saying so

from flux_client.producer import FluxProducer
from flux_client.sending import RecordSender
from flux_client.streams import present
from flux_client.tokens import IssuerKey
from flux_common.contracts.catalogue import DEAD_LETTERS, DECISIONS, REQUESTS, RUN_REQUESTED
from flux_common.contracts.envelope import Outgoing, headers_for
from flux_common.kernel.positions import Position
from flux_common.postgres.queries import Queries
from flux_devkit.asking import a_request, ends, texts
from flux_devkit.canary import SLICE, Searched, search
from flux_devkit.finding import Finding, report
from flux_devkit.flux import Flux
from flux_devkit.home import locate
from flux_devkit.installation import SERVICES, Installation
from flux_devkit.servers import Place, Servers
from flux_devkit.stack import Stack

AGENCY: Final = "nasa"
ANSWER_SECONDS: Final = 60.0
PLANTED: Final = ("log", "record", "table", "trace")
_SQL = Queries.load("flux_devkit", "canary.sql")


async def whole_run(flux: Flux) -> dict[str, str]:
    """Have one request carried out and six refused; return the secrets that were in them, by what they are."""
    source = texts(flux.folder("archives", AGENCY, f"canary-{secrets.token_hex(4)}"), 3)
    token = a_token(flux)
    async with FluxProducer(AGENCY, flux.installation.kafka(), token=token) as producer:
        accepted = await producer.submit(a_request(flux, AGENCY, f"canary-{secrets.token_hex(6)}", source))
    kept = {"accepted token": token}
    refused = list(hostile(flux, source, kept))
    sender = RecordSender(flux.installation.kafka())
    try:
        sent = [await sender.send(record) for record in refused]
    finally:
        await sender.close()
    await ends(flux, AGENCY, [accepted.run_id], proven=True)
    await answered(flux, sent)
    return kept


def hostile(flux: Flux, source: Path, kept: dict[str, str]) -> Iterator[Outgoing]:
    """Yield records that are refused, each at its own place; what is secret in them is added to `kept`."""
    for place in ("schema value", "unknown property", "broken JSON", "source of others", "bad signature", "no token"):
        marked, token = f"canary-{secrets.token_hex(24)}", a_token(flux)
        body: dict[str, Any] = a_request(flux, AGENCY, f"canary-{secrets.token_hex(6)}", source)
        match place:
            case "schema value":
                body["content_type"] = marked
            case "unknown property":
                body["note"] = {"marked": marked}
            case "source of others":
                body["source"] = {"uri": f"file:///elsewhere/{marked}/"}
            case "bad signature":
                token = f"{token[:-12]}{secrets.token_hex(6)}"
            case "no token":
                token = marked
        value = f'{{"request_id": "x", "note": "{marked}' if place == "broken JSON" else json.dumps(body)
        kept |= {f"{place}: value": marked} if marked in value + token else {}
        kept |= {f"{place}: token": token} if token != marked else {}
        yield a_record(str(body["request_id"]), value, token)


def a_token(flux: Flux) -> str:
    """Return a token that is good for any one record."""
    return IssuerKey(flux.key(AGENCY), sub=f"canary-{secrets.token_hex(4)}").token(AGENCY, datetime.now(UTC))


def a_record(request_id: str, value: str, token: str) -> Outgoing:
    """Return a record of the requests topic as nobody's client would write it."""
    event_id = f"canary-{secrets.token_hex(6)}"
    headers = headers_for(RUN_REQUESTED, event_id=event_id, source="canary", at=datetime.now(UTC), subject=request_id)
    headers = [*headers, ("authorization", f"Bearer {token}".encode())]
    return Outgoing(REQUESTS.of(AGENCY), request_id, event_id, headers, value.encode(), AGENCY)


async def answered(flux: Flux, sent: list[Position]) -> None:
    """Wait until each record has its decision or dead letter. Raises TimeoutError."""
    waiting = {(at.tp.kafka_partition, at.offset) for at in sent}
    async with asyncio.timeout(ANSWER_SECONDS):
        while waiting:
            for topic in (DECISIONS, DEAD_LETTERS):
                async for event in present(flux.installation.kafka(), topic.of(AGENCY)):
                    at: Any = event.body
                    waiting.discard((at.position.kafka_partition, at.position.offset))
            await asyncio.sleep(0.2)


@asynccontextmanager
async def planted(flux: Flux, text: str) -> AsyncIterator[Path]:
    """Put a text where the search must find it; yields the file of spans. All of it is gone afterwards."""
    name = f"{flux.installation.topic_prefix}flux-planted"
    log, spans = flux.logs / "planted.log", flux.logs / "planted.spans"
    brokers = AdminClient({"bootstrap.servers": flux.installation.servers.kafka_bootstrap})
    connection = await asyncpg.connect(flux.installation.admin_dsn)
    await asyncio.to_thread(brokers.create_topics([NewTopic(name, 1, 1)])[name].result, ANSWER_SECONDS)
    sender = RecordSender(flux.installation.kafka())
    try:
        await sender.send(Outgoing("flux-planted", "k", "planted", [("x", text.encode())], b"{}", AGENCY))
        await connection.execute(_SQL["plant"])
        await connection.execute(_SQL["water"], text.encode())
        log.write_text(f'{{"event": "x", "value": "{text}"}}\n')
        spans.write_text(f'{{"name": "{text}"}}\n')
        yield spans
    finally:
        await sender.close()
        await connection.execute(_SQL["uproot"])
        await connection.close()
        await asyncio.to_thread(brokers.delete_topics([name])[name].result, ANSWER_SECONDS)
        log.unlink(missing_ok=True)
        spans.unlink(missing_ok=True)


async def prove(flux: Flux, traces: list[Path]) -> list[Finding]:
    """Run, search, plant and search again."""
    kept = only_its_own(await whole_run(flux), a_token(flux))
    clean = await search(flux, kept, traces=traces)
    slice_of_one = next(iter(kept.values()))[:SLICE]
    async with planted(flux, slice_of_one) as spans:
        seeded = await search(flux, kept, traces=[*traces, spans])
    return [nothing_leaked(clean, kept), all_found(seeded)]


def only_its_own(kept: Mapping[str, str], another: str) -> dict[str, str]:
    """Return of each secret the runs without a slice that another token of the same issuer has, too.

    What all of them share (algorithm, issuer, agency, role) is no secret: facts name it, and a receipt encodes it as a token
    does, so that the very letters can stand there.
    """
    runs: dict[str, str] = {}
    for name, secret in kept.items():
        starts = [at for at in range(len(secret) - SLICE + 1) if secret[at : at + SLICE] not in another]
        for _, group in itertools.groupby(enumerate(starts), lambda pair: pair[1] - pair[0]):
            run = [start for _, start in group]
            runs[f"{name} at {run[0]}"] = secret[run[0] : run[-1] + SLICE]
    return runs


def nothing_leaked(clean: Searched, kept: Mapping[str, str]) -> Finding:
    """Judge the search of what Flux wrote."""
    looked = ", ".join(f"{name} {size // 1024} KiB" for name, size in sorted(clean.size.items()))
    where = "".join(f"; {leak.secret} in {leak.where}" for leak in clean.leaks[:5])
    everywhere = {"record", "table", "log", "trace", "metrics"} <= {name for name, size in clean.size.items() if size}
    measured = f"{len(clean.leaks)} slices of {len(kept)} secrets, in {looked}{where}"
    return Finding("secrets outside the producers' own records", everywhere and not clean.leaks, measured, "0")


def all_found(seeded: Searched) -> Finding:
    """Judge the search of what was planted."""
    found = sorted({leak.where.split(" ")[0] for leak in seeded.leaks if "planted" in leak.where})
    return Finding("planted slices found", found == list(PLANTED), ", ".join(found) or "none", ", ".join(PLANTED))


def main() -> int:
    """Prove it on servers of its own; 0 if everything holds."""
    with tempfile.TemporaryDirectory(prefix="flux-canary-") as name:
        folder = Path(name)
        with Stack(Place(locate(), folder / "servers", folder)) as servers:
            return report(_on(servers, folder))


def _on(servers: Servers, folder: Path) -> list[Finding]:
    traces = {service: folder / f"{service}.spans" for service in SERVICES}
    overrides = {service: {"FLUX_TRACE_FILE": str(path)} for service, path in traces.items()}
    installation = Installation(servers, folder / "keys", folder / "data", "canary", overrides=overrides)
    with Flux(installation, folder / "logs") as flux:
        return asyncio.run(prove(flux, list(traces.values())))


if __name__ == "__main__":
    sys.exit(main())
