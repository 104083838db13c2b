"""Whatever is written to an agency's requests topic gets its own clear answer, and the lane goes on.

The records are written by confluent-kafka, not by Flux's own client: nothing in them is checked before they are sent.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer

from flux_client.development import AUDIENCE, DevelopmentAgency
from flux_client.keys import TokenClaims, generate_key, mint_token
from flux_devkit.asking import a_request, texts
from flux_devkit.flux import Flux

AGENCY = "nasa"
ISS = DevelopmentAgency(AGENCY, AGENCY).iss


@dataclass
class Sent:
    """One record of a hostile or honest producer."""

    value: bytes | None
    headers: list[tuple[str, Any]] = field(default_factory=list)
    key: str | None = None


def a_token(flux: Flux, *, iss: str = ISS, age_s: int = 0, key: Any = None, agency: str = AGENCY) -> str:
    claims = TokenClaims(
        iss=iss, sub="t", aud=AUDIENCE, agency=agency, role="operator", jti=secrets.token_hex(8),
        issued_at=datetime.fromtimestamp(time.time() - age_s, UTC), life_s=600,
    )  # fmt: skip
    return mint_token(key or flux.key(AGENCY), claims)


def headers(token: str, type_: str = "flux.run.requested.v1") -> list[tuple[str, Any]]:
    named = {"ce_specversion": "1.0", "ce_id": secrets.token_hex(8), "ce_source": "t", "ce_type": type_}
    return [*named.items(), ("authorization", f"Bearer {token}")]


class Wire:
    """Writes records, and reads what is answered about their positions."""

    def __init__(self, flux: Flux) -> None:
        self.flux = flux
        installation = flux.installation
        self._prefix = installation.topic_prefix
        self._producer = Producer(
            {"bootstrap.servers": installation.servers.kafka_bootstrap, "message.max.bytes": 2_000_000}
        )
        self._consumer = Consumer(
            {
                "bootstrap.servers": installation.servers.kafka_bootstrap,
                "group.id": f"{self._prefix}wire-{secrets.token_hex(4)}",
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
            }
        )
        self._consumer.subscribe(
            [f"{self._prefix}flux.{AGENCY}.run.decisions.v1", f"{self._prefix}flux.{AGENCY}.dead-letters.v1"]
        )
        self.answers: dict[tuple[int, int], tuple[str, str | None]] = {}

    def send(self, sent: Sent) -> tuple[int, int]:
        """Write one record and return its Kafka partition and offset."""
        where: list[tuple[int, int]] = []
        self._producer.produce(
            f"{self._prefix}flux.{AGENCY}.run.requests.v1",
            value=sent.value,
            key=sent.key,
            headers=sent.headers,
            on_delivery=lambda error, message: where.append((message.partition(), message.offset())),
        )
        self._producer.flush(10)
        return where[0]

    def answer(self, place: tuple[int, int], seconds: float = 30) -> tuple[str, str | None]:
        """Return the event type and the code that answer the record at `place`."""
        deadline = time.monotonic() + seconds
        while place not in self.answers and time.monotonic() < deadline:
            message = self._consumer.poll(0.2)
            if message is not None and message.error() is None:
                body = json.loads(message.value())
                named = body["position"]
                type_ = dict(message.headers())["ce_type"].decode()
                assert (named["kafka_partition"], named["offset"]) not in self.answers, "answered twice"
                self.answers[(named["kafka_partition"], named["offset"])] = (type_, body.get("code"))
        return self.answers.get(place, ("nothing", None))

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()


@pytest.fixture(scope="module")
def wire(flux: Flux) -> Any:
    opened = Wire(flux)
    yield opened
    opened.close()


REJECTED, DEAD = "flux.run.rejected.v1", "flux.record.dead-lettered.v1"

Case = Callable[[Flux, dict[str, Any]], Sent]
CASES: dict[str, tuple[Case, str, str]] = {
    "a payload that names another agency": (
        lambda flux, body: Sent(json.dumps(body | {"agency": "library-of-congress"}).encode(), headers(a_token(flux))),
        REJECTED,
        "AGENCY_MISMATCH",
    ),
    "an expired token": (
        lambda flux, body: Sent(json.dumps(body).encode(), headers(a_token(flux, age_s=4000))),
        REJECTED,
        "TOKEN_EXPIRED",
    ),
    "a token of another agency's issuer": (
        lambda flux, body: Sent(
            json.dumps(body).encode(),
            headers(
                a_token(flux, iss=DevelopmentAgency("library-of-congress", "").iss, key=flux.key("library-of-congress"))
            ),
        ),
        REJECTED,
        "AGENCY_MISMATCH",
    ),
    "a token of an issuer that nobody registered": (
        lambda flux, body: Sent(json.dumps(body).encode(), headers(a_token(flux, iss="https://nobody.example"))),
        REJECTED,
        "ISSUER_UNKNOWN",
    ),
    "a token signed with a key that nobody registered": (
        lambda flux, body: Sent(json.dumps(body).encode(), headers(a_token(flux, key=generate_key("EdDSA")))),
        REJECTED,
        "KEY_UNKNOWN",
    ),
    "no token": (lambda _flux, body: Sent(json.dumps(body).encode(), headers("x")[:-1]), REJECTED, "TOKEN_MISSING"),
    "a schema violation": (
        lambda flux, body: Sent(json.dumps(body | {"content_type": "films"}).encode(), headers(a_token(flux))),
        REJECTED,
        "SCHEMA_VIOLATION",
    ),
    "a use case that is not offered yet": (
        lambda flux, body: Sent(json.dumps(body | {"use_case": "vr"}).encode(), headers(a_token(flux))),
        REJECTED,
        "USE_CASE_NOT_AVAILABLE",
    ),
    "a source outside what the agency may read": (
        lambda flux, body: Sent(
            json.dumps(body | {"source": {"uri": "file:///etc/"}}).encode(), headers(a_token(flux))
        ),
        REJECTED,
        "SOURCE_NOT_ALLOWED",
    ),
    "1 MiB of garbage": (
        lambda flux, _body: Sent(secrets.token_bytes(2**20), headers(a_token(flux))),
        REJECTED,
        "TOO_LARGE",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_record_that_must_be_refused_gets_its_own_answer(flux: Flux, wire: Wire, name: str) -> None:
    """Each kind of hostile record: one decision or dead letter, of its own code."""
    make, type_, code = CASES[name]
    body = a_request(flux, AGENCY, f"hostile-{secrets.token_hex(4)}", flux.folder("archives", AGENCY))

    assert wire.answer(wire.send(make(flux, body))) == (type_, code)


@pytest.mark.parametrize("name", ["null value", "header that is not UTF-8", "no ce_type", "unknown ce_type"])
def test_a_record_that_is_no_event_is_answered_too(flux: Flux, wire: Wire, name: str) -> None:
    """What cannot even be read as a request is refused or put aside, by name; never passed over."""
    body = json.dumps(a_request(flux, AGENCY, "x", flux.folder("archives", AGENCY))).encode()
    token = a_token(flux)
    sent = {
        "null value": Sent(None, headers(token), key="x"),
        "header that is not UTF-8": Sent(body, [*headers(token), ("ce_subject", b"\xff\xfe")]),
        "no ce_type": Sent(body, [h for h in headers(token) if h[0] != "ce_type"]),
        "unknown ce_type": Sent(body, headers(token, "flux.run.imagined.v1")),
    }[name]
    codes = {
        "null value": "VALUE_MISSING",
        "header that is not UTF-8": "NOT_UTF8",
        "no ce_type": "HEADER_INVALID",
        "unknown ce_type": "EVENT_TYPE_UNKNOWN",
    }
    type_, code = wire.answer(wire.send(sent))

    assert type_ in {REJECTED, DEAD}
    assert code == codes[name]


def test_a_request_again_is_repeated_and_another_body_is_a_conflict(flux: Flux, wire: Wire) -> None:
    """Only an accepted decision occupies an id, and it does so for ever; the lane went on after all the above."""
    source = texts(flux.folder("archives", AGENCY, "twice"), 3)
    body = a_request(flux, AGENCY, f"twice-{secrets.token_hex(4)}", source)
    first, again, other = json.dumps(body), json.dumps(body), json.dumps(body | {"labels": {"a": "b"}})
    key = body["request_id"]
    answers = [
        wire.answer(wire.send(Sent(value.encode(), headers(a_token(flux)), key=key))) for value in (first, again, other)
    ]

    assert answers == [
        ("flux.run.accepted.v1", None),
        ("flux.run.repeated.v1", None),
        (REJECTED, "REQUEST_CONFLICT"),
    ]
