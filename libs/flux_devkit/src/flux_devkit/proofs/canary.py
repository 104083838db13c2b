"""`python -m flux_devkit.proofs.canary`: no token and no refused value turns up anywhere, and a planted one would be found.

A whole Flux runs: two requests are accepted and worked to their receipts, one of them and a command by proof; others are
refused or dead letters, each with a marked value at another place of the way in (schema, JSON, terms, token, proof, key,
headers, a command). Then everything that was written is searched (flux_devkit.canary). The body of an accepted request is no
secret: Flux carries it to the worker; its headers are. At the end a slice of a secret is planted in a topic, a table, a log and
a file of spans, and the same search must find all four. About half a minute.
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

from flux_client.development import AUDIENCE, DevelopmentAgency
from flux_client.keys import SigningKey, TokenClaims, generate_key, mint_token
from flux_client.producer import FluxProducer
from flux_client.sending import RecordSender
from flux_client.streams import present
from flux_client.tokens import Record, Right, authorization
from flux_common.auth.record import AUTHORIZATION, FLUX_PROOF
from flux_common.contracts.catalogue import (
    COMMAND_REQUESTED,
    DEAD_LETTERS,
    DECISIONS,
    REQUESTS,
    RUN_REQUESTED,
    EventSpec,
)
from flux_common.contracts.envelope import Outgoing, headers_for
from flux_common.kernel.ids import run_id
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
FREE_HEADERS: Final = ("ce_id", "ce_source", "ce_subject", "ce_time", "ce_fluxnote", "ce_note", "traceparent", "x-note")
# In the order of what is sent: by proof, hostile, beside_the_body, put_aside.
ANSWERS: Final = [
    *("accepted", "accepted"),
    *(
        "SCHEMA_VIOLATION",
        "SCHEMA_VIOLATION",
        "JSON_INVALID",
        "SOURCE_NOT_ALLOWED",
        "SIGNATURE_INVALID",
        "TOKEN_MALFORMED",
    ),
    *("BINDING_MISMATCH", "KEY_MISMATCH", "SCHEMA_VIOLATION"),
    *("EVENT_TYPE_UNKNOWN", "HEADER_INVALID", "HEADER_INVALID"),
]
PLANTED: Final = ("log", "record", "table", "trace")
_SQL = Queries.load("flux_devkit", "canary.sql")


async def whole_run(flux: Flux) -> tuple[dict[str, str], list[str]]:
    """Have requests carried out and others refused; return the secrets in them, by what they are, and the answers."""
    source = texts(flux.folder("archives", AGENCY, f"canary-{secrets.token_hex(4)}"), 3)
    token = a_token(flux)
    async with FluxProducer(AGENCY, flux.installation.kafka(), token=token) as producer:
        accepted = await producer.submit(a_request(flux, AGENCY, f"canary-{secrets.token_hex(6)}", source))
    kept = {"accepted token": token}
    proven = by_proof(RUN_REQUESTED, flux, a_request(flux, AGENCY, f"canary-{secrets.token_hex(6)}", source), kept)
    command = by_proof(COMMAND_REQUESTED, flux, a_command(str(proven.key)), kept)
    sender = RecordSender(flux.installation.kafka())
    try:
        records = [proven, command, *hostile(flux, source, kept)]
        records += [*beside_the_body(flux, source, kept), *put_aside(flux, kept)]
        sent = [await sender.send(record) for record in records]
    finally:
        await sender.close()
    await ends(flux, AGENCY, [accepted.run_id, str(run_id(AGENCY, str(proven.key)))], proven=True)
    return kept, await answered(flux, sent)


def by_proof(spec: EventSpec, flux: Flux, body: dict[str, Any], kept: dict[str, str]) -> Outgoing:
    """Return a record that is accepted, by a token that is confined to a key and a proof by that key."""
    what, value, proof_key = f"{spec.name} by proof", json.dumps(body).encode(), generate_key()
    token = a_token(flux, proof_key)
    record = Record(AGENCY, REQUESTS.of(AGENCY), str(body["request_id"]), value)
    shown = dict(Right(token, None, proof_key).headers(record, datetime.now(UTC)))
    # The proof's payload names the topic and the record's key, which receipts encode in the same way.
    head, _, signature = shown[FLUX_PROOF].decode().split(".")
    kept |= {f"{what}: token": token, f"{what}: head": head, f"{what}: signature": signature}
    return a_record(record.key, value, shown | marked_headers(what, kept), spec)


def hostile(flux: Flux, source: Path, kept: dict[str, str]) -> Iterator[Outgoing]:
    """Yield records that are refused, each at its own place; what is secret in them is added to `kept`."""
    for place in ("schema value", "unknown property", "broken JSON", "source of others", "bad signature", "no token"):
        marked, token = a_mark(), a_token(flux)
        body: dict[str, Any] = a_request(flux, AGENCY, f"canary-{secrets.token_hex(6)}", source)
        match place:
            case "schema value":
                body["content_type"] = marked
            case "unknown property":
                body["note"] = {"marked": marked}
            case "source of others":
                body["source"] = {"uri": f"file:///elsewhere/{marked}/"}
            case "bad signature":
                token = f"{token[:-13]}{secrets.token_hex(6)}{token[-1]}"  # the last letter keeps it base64url
            case "no token":
                token = marked
        value = f'{{"request_id": "x", "note": "{marked}' if place == "broken JSON" else json.dumps(body)
        kept |= {f"{place}: value": marked} if marked in value + token else {}
        kept |= {f"{place}: token": token} if token != marked else {}
        yield a_record(str(body["request_id"]), value.encode(), {AUTHORIZATION: f"Bearer {token}".encode()})


def beside_the_body(flux: Flux, source: Path, kept: dict[str, str]) -> Iterator[Outgoing]:
    """Yield records that are refused for their proof, their key, and as a command, with marks in every header, too."""
    for place in ("proof", "key", "command"):
        kept |= {f"{place}: token": a_token(flux), f"{place}: {place}": a_mark()}
        marked, token = kept[f"{place}: {place}"], authorization(kept[f"{place}: token"])
        body = a_request(flux, AGENCY, f"canary-{secrets.token_hex(6)}", source)
        if place == "command":
            body = a_command(str(body["request_id"])) | {"reason": {"note": marked}}
        key = marked if place == "key" else str(body["request_id"])
        proof = {FLUX_PROOF: marked.encode()} if place == "proof" else {}
        spec = COMMAND_REQUESTED if place == "command" else RUN_REQUESTED
        yield a_record(key, json.dumps(body).encode(), dict(token) | proof | marked_headers(place, kept), spec)


def put_aside(flux: Flux, kept: dict[str, str]) -> Iterator[Outgoing]:
    """Yield records that become dead letters, with marks wherever a record can have one."""
    for place in ("ce_type", "ce_specversion", "ce_id"):
        token, names = a_token(flux), ("key", "value", place, FLUX_PROOF)
        marks = {name: a_mark() for name in names}
        kept |= {f"dead letter by {place}: {name}": text for name, text in {**marks, "token": token}.items()}
        headers = marked_headers(f"dead letter by {place}", kept) | dict(authorization(token))
        headers |= {name: marks[name].encode() for name in (place, FLUX_PROOF)}
        if place == "ce_id":
            headers[place] *= 1000  # larger than 16 KiB
        yield a_record(marks["key"], json.dumps({"note": marks["value"]}).encode(), headers)


def marked_headers(what: str, kept: dict[str, str]) -> dict[str, bytes]:
    """Return a mark for each header in which a producer may write what it likes; they are added to `kept`."""
    marks = {name: a_mark() for name in FREE_HEADERS}
    kept |= {f"{what}: {name}": text for name, text in marks.items()}
    return {name: text.encode() for name, text in marks.items()}


def a_mark() -> str:
    """Return a text that stands nowhere else."""
    return f"canary-{secrets.token_hex(24)}"


def a_command(request_id: str) -> dict[str, Any]:
    """Return a command that changes nothing."""
    command_id = f"canary-{secrets.token_hex(6)}"
    return {"request_id": request_id, "command_id": command_id, "command": "resume", "reason": "canary"}


def a_token(flux: Flux, proof_key: SigningKey | None = None) -> str:
    """Return a token that is good for any one record; with `proof_key` for any that has a proof by it."""
    claims = TokenClaims(
        iss=DevelopmentAgency(AGENCY, AGENCY).iss,
        sub="canary",
        aud=AUDIENCE,
        agency=AGENCY,
        role="operator",
        jti=secrets.token_hex(16),
        issued_at=datetime.now(UTC),
        proof_key=proof_key,
    )
    return mint_token(flux.key(AGENCY), claims)


def a_record(key: str, value: bytes, headers: Mapping[str, bytes], spec: EventSpec = RUN_REQUESTED) -> Outgoing:
    """Return a record of the requests topic as nobody's client would write it."""
    event_id = f"canary-{secrets.token_hex(6)}"
    plain = headers_for(spec, event_id=event_id, source="canary", at=datetime.now(UTC), subject=key)
    named = [*{**dict(plain), **headers}.items()]
    return Outgoing(REQUESTS.of(AGENCY), key, event_id, named, value, AGENCY)


async def answered(flux: Flux, sent: list[Position]) -> list[str]:
    """Return the code of each record's decision or dead letter, none as "accepted". Raises TimeoutError."""
    places = [(at.tp.kafka_partition, at.offset) for at in sent]
    codes: dict[tuple[int, int], str] = {}
    async with asyncio.timeout(ANSWER_SECONDS):
        while not codes.keys() >= set(places):
            for topic in (DECISIONS, DEAD_LETTERS):
                async for event in present(flux.installation.kafka(), topic.of(AGENCY)):
                    body: Any = event.body
                    codes[body.position.kafka_partition, body.position.offset] = getattr(body, "code", "accepted")
            await asyncio.sleep(0.2)
    return [codes[place] for place in places]


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
    secret, codes = await whole_run(flux)
    kept = only_its_own(secret, a_token(flux), a_token(flux, generate_key()))
    clean = await search(flux, kept, traces=traces)
    slice_of_one = next(iter(kept.values()))[:SLICE]
    async with planted(flux, slice_of_one) as spans:
        seeded = await search(flux, kept, traces=[*traces, spans])
    return [each_at_its_place(codes), nothing_leaked(clean, kept), all_found(seeded)]


def only_its_own(kept: Mapping[str, str], *others: str) -> dict[str, str]:
    """Return of each secret the runs without a slice that other tokens of the same issuer have, too.

    What all of them share (algorithm, issuer, agency, role) is no secret: facts name it, and a receipt encodes it as a token
    does, so that the very letters can stand there.
    """
    runs: dict[str, str] = {}
    for name, secret in kept.items():
        starts = [
            at for at in range(len(secret) - SLICE + 1) if not any(secret[at : at + SLICE] in other for other in others)
        ]
        for _, group in itertools.groupby(enumerate(starts), lambda pair: pair[1] - pair[0]):
            run = [start for _, start in group]
            runs[f"{name} at {run[0]}"] = secret[run[0] : run[-1] + SLICE]
    return runs


def each_at_its_place(codes: list[str]) -> Finding:
    """Judge the answers: a mark that was refused early was never carried to where it might leak."""
    return Finding("answers to the marked records", codes == ANSWERS, ", ".join(codes), ", ".join(ANSWERS))


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
