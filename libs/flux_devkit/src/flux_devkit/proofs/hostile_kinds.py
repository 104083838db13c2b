"""Every kind of hostile record, and the one answer that each must get. The test and the proof share this table.

Each record is good but for what its name says. `heavy` ones cost more to send than to refuse, and are sent more rarely.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from flux_common.auth.compact import encode_base64url
from flux_common.kernel.codes import Code
from flux_devkit.proofs.forging import COMMAND_TYPE, Forged, Forger

REJECTED: Final = "flux.run.rejected.v1"
COMMAND_REJECTED: Final = "flux.run.command-rejected.v1"
DEAD: Final = "flux.record.dead-lettered.v1"
UNDER: Final = 8 * 2**10  # what headers and framing take at most, beside a value that fills its bound
Make = Callable[[Forger], Forged]


@dataclass(frozen=True, slots=True)
class HostileKind:
    """A kind of hostile record: its name, the answer's code and type, and who makes one."""

    name: str
    code: Code
    make: Make
    answer: str = REJECTED
    heavy: bool = False


def _enveloped(name: str, code: Code, make: Make) -> HostileKind:
    """A record that is no event of the topic: nobody can tell what it asks for."""
    return HostileKind(name, code, make, DEAD)


def _token(name: str, code: Code, make: Callable[[Forger], bytes]) -> HostileKind:
    """A good request with this token."""
    return HostileKind(name, code, lambda f: f.record(f.body(), token=make(f)))


def _header(name: str, code: Code, **changes: Any) -> HostileKind:
    """A good request whose token's header is changed, and signed so."""
    return _token(name, code, lambda f: f.token(f.header(**changes)))


def _claims(name: str, code: Code, **changes: Any) -> HostileKind:
    """A good request whose token's claims are changed, and signed so."""
    return _token(name, code, lambda f: f.token(claims=f.claims(**changes)))


def _times(name: str, code: Code, **seconds: float) -> HostileKind:
    """A good request whose token's times are others, in seconds from now."""
    return _token(name, code, lambda f: f.token(claims=f.claims(seconds=seconds)))


def _body(name: str, code: Code, make: Callable[[Forger], bytes | None], *, heavy: bool = False) -> HostileKind:
    """A good record with this value."""
    return HostileKind(name, code, lambda f: f.record(make(f)), heavy=heavy)


def _flipped(token: bytes) -> bytes:
    """Return a token with another signature of the same form."""
    head, _, _ = token.rpartition(b".")
    return head + b"." + encode_base64url(bytes(64)).encode()


def _uncanonical(token: bytes) -> bytes:
    """Return a token whose last character has bits that its bytes do not have."""
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + letters[letters.index(token[-1:]) ^ 1 :][:1]


ENVELOPES: Final = (
    _enveloped("no headers", Code.HEADER_INVALID, lambda f: Forged(f.body())),
    _enveloped("no type", Code.HEADER_INVALID, lambda f: f.record(f.body(), headers={"ce_type": b""})),
    _enveloped("no id", Code.HEADER_INVALID, lambda f: f.record(f.body(), headers={"ce_id": b""})),
    _enveloped("two ids", Code.HEADER_INVALID, lambda f: f.record(f.body(), extra=[("ce_id", b"e-2")])),
    _enveloped("two types", Code.HEADER_INVALID, lambda f: f.record(f.body(), extra=[("ce_type", b"x")])),
    _enveloped("a null id", Code.HEADER_INVALID, lambda f: f.record(f.body(), headers={"ce_id": b""}, extra=[("ce_id", None)])),
    _enveloped("an id of 17 KiB", Code.HEADER_INVALID, lambda f: f.record(f.body(), headers={"ce_id": b"x" * 17_408})),
    _enveloped("CloudEvents 0.3", Code.HEADER_INVALID, lambda f: f.record(f.body(), headers={"ce_specversion": b"0.3"})),
    _enveloped("65 headers", Code.HEADER_INVALID, lambda f: f.record(f.body(), extra=[(f"x-{n}", b"") for n in range(60)])),
    HostileKind(
        "20,000 headers", Code.HEADER_INVALID, lambda f: f.record(f.body(), extra=[("ce_x", b"x")] * 20_000), DEAD, heavy=True
    ),
    _enveloped("a subject that is not UTF-8", Code.NOT_UTF8, lambda f: f.record(f.body(), extra=[("ce_subject", b"\xff\xfe")])),
    _enveloped("an unknown type", Code.EVENT_TYPE_UNKNOWN, lambda f: f.record(f.body(), headers={"ce_type": b"flux.run.x.v1"})),
    _enveloped("ours", Code.EVENT_TYPE_UNKNOWN, lambda f: f.record(f.body(), headers={"ce_type": b"flux.run.accepted.v1"})),
    HostileKind(
        "40 MiB in some kilobytes", Code.TOO_LARGE, lambda f: f.record(b"\0" * 40 * 2**20, compressed=True), DEAD, heavy=True
    ),
    HostileKind(
        "a record just under 16 MiB in some kilobytes", Code.TOO_LARGE,
        lambda f: f.record(b"\0" * (16 * 2**20 - UNDER), compressed=True), DEAD, heavy=True,
    ),
)  # fmt: skip

TOKENS: Final = (
    HostileKind(
        "no token, and a header name just under 2 MiB in some kilobytes", Code.TOKEN_MISSING,
        lambda f: f.record(
            f.body(), headers={"authorization": b""}, extra=[("\U0001f600" + "x" * (2 * 2**20 - UNDER), b"")], compressed=True
        ),
        heavy=True,
    ),
    HostileKind("no token", Code.TOKEN_MISSING, lambda f: f.record(f.body(), headers={"authorization": b""})),
    HostileKind("a password", Code.TOKEN_MISSING, lambda f: f.record(f.body(), headers={"authorization": b"Basic eDp5"})),
    HostileKind("two tokens", Code.HEADER_INVALID, lambda f: f.record(f.body(), extra=[("authorization", b"Bearer x")])),
    HostileKind("a token of 9 KiB", Code.HEADER_INVALID, lambda f: f.record(f.body(), token=b"x" * 9_216)),
    HostileKind("two proofs", Code.HEADER_INVALID, lambda f: f.record(f.body(), extra=[("flux-proof", b"x")] * 2)),
    HostileKind("an empty proof", Code.HEADER_INVALID, lambda f: f.record(f.body(), extra=[("flux-proof", b"")])),
    _token("an empty token", Code.TOKEN_MALFORMED, lambda _: b""),
    _token("two parts", Code.TOKEN_MALFORMED, lambda f: f.token().rpartition(b".")[0]),
    _token("four parts", Code.TOKEN_MALFORMED, lambda f: f.token() + b".x"),
    _token("a padded signature", Code.TOKEN_MALFORMED, lambda f: f.token() + b"=="),
    _token("a signature with loose bits", Code.TOKEN_MALFORMED, lambda f: _uncanonical(f.token())),
    _token("a header that repeats a name", Code.TOKEN_HEADER_REFUSED, lambda f: f.token('{"kid": "x", ' + f.header()[1:])),
    _header("a header without alg", Code.TOKEN_HEADER_REFUSED, alg=None),
    _header("a header with crit", Code.TOKEN_HEADER_REFUSED, crit=["exp"]),
    _header("a header with a key", Code.TOKEN_HEADER_REFUSED, jwk={"kty": "OKP", "crv": "Ed25519", "x": "A" * 43}),
    _header("a header with a URL", Code.TOKEN_HEADER_REFUSED, jku="https://evil.example/jwks.json"),
    _header("another typ", Code.TOKEN_HEADER_REFUSED, typ="id_token"),
    _header("no kid", Code.TOKEN_HEADER_REFUSED, kid=None),
    _header("a kid that is a path", Code.TOKEN_HEADER_REFUSED, kid="../../etc/passwd"),
    _header("a kid of 129 characters", Code.TOKEN_HEADER_REFUSED, kid="k" * 129),
    _header("alg none", Code.ALGORITHM_REFUSED, alg="none"),
    _header("alg HS256", Code.ALGORITHM_REFUSED, alg="HS256"),
    _header("an unknown kid", Code.KEY_UNKNOWN, kid="k-2019"),
    _claims("an unknown issuer", Code.ISSUER_UNKNOWN, iss="https://evil.example"),
    _claims("an issuer with a slash more", Code.ISSUER_UNKNOWN, iss="https://issuer.nasa.example/"),
    _token("claims that repeat a name", Code.CLAIM_INVALID, lambda f: f.token(claims='{"agency": "loc", ' + f.claims()[1:])),
    _token("claims that are a list", Code.CLAIM_INVALID, lambda f: f.token(claims="[]")),
    _claims("exp as text", Code.CLAIM_INVALID, exp="9999999999"),
    _times("exp as a fraction", Code.CLAIM_INVALID, exp=60.5),
    _claims("exp that is true", Code.CLAIM_INVALID, exp=True),
    _claims("no jti", Code.CLAIM_INVALID, jti=None),
    _claims("a list of agencies", Code.CLAIM_INVALID, agency=["nasa", "loc"]),
    _token("an empty signature", Code.TOKEN_MALFORMED, lambda f: f.token().rpartition(b".")[0] + b"."),
    _token("another signature", Code.SIGNATURE_INVALID, lambda f: _flipped(f.token())),
    _token("a neighbour's signature", Code.SIGNATURE_INVALID, lambda f: f.token(signer=f.neighbour.agency_id)),
    _claims("another audience", Code.AUDIENCE_MISMATCH, aud="somebody-else"),
    _times("a token for a year", Code.TOKEN_LIFE_TOO_LONG, exp=31_536_000),
    _claims("a viewer", Code.ROLE_FORBIDDEN, role="viewer"),
    _claims("an unknown role", Code.ROLE_FORBIDDEN, role="root"),
    _token("a neighbour's token", Code.AGENCY_MISMATCH, lambda f: f.neighbours_token()),
    _token("a neighbour's token in our name", Code.AGENCY_MISMATCH, lambda f: f.neighbours_token(agency=f.agency.agency_id)),
    _claims("a token in the neighbour's name", Code.AGENCY_MISMATCH, agency="loc"),
    _times("a token of yesterday", Code.TOKEN_EXPIRED, iat=-86_400, exp=-85_800),
    _times("a token of the future", Code.TOKEN_NOT_YET_VALID, nbf=500),
    _claims("bound to another body", Code.BINDING_MISMATCH, request_hash="A" * 43),
    _claims("confined to a key, no proof", Code.BINDING_REQUIRED, cnf={"jkt": "A" * 43}),
    HostileKind(
        "confined to a key, junk for proof",
        Code.BINDING_MISMATCH,
        lambda f: f.record(f.body(), token=f.token(claims=f.claims(cnf={"jkt": "A" * 43})), extra=[("flux-proof", b"a.b.c")]),
    ),
    _token("a spent token", Code.TOKEN_REPLAYED, lambda f: f.spent_token),
)  # fmt: skip

BODIES: Final = (
    _body("no value", Code.VALUE_MISSING, lambda _: None),
    _body("an empty value", Code.JSON_INVALID, lambda _: b""),
    _body("one byte too many", Code.TOO_LARGE, lambda f: f.body().ljust(256 * 1024 + 1), heavy=True),
    _body("1 MiB of bytes", Code.TOO_LARGE, lambda _: bytes(range(256)) * 4096, heavy=True),
    HostileKind(
        "a record just under 2 MiB in some kilobytes", Code.TOO_LARGE,
        lambda f: f.record(b"\0" * (2 * 2**20 - UNDER), compressed=True), heavy=True,
    ),
    _body("not UTF-8", Code.NOT_UTF8, lambda _: b'{"request_id": "\xff"}'),
    _body("a surrogate in UTF-8", Code.NOT_UTF8, lambda _: b'{"request_id": "\xed\xa0\x80"}'),
    _body("UTF-16", Code.NOT_UTF8, lambda f: f.body().decode().encode("utf-16")),
    _body("a byte order mark", Code.JSON_INVALID, lambda f: b"\xef\xbb\xbf" + f.body()),
    _body("65 levels", Code.JSON_TOO_DEEP, lambda f: f.padded('"options": ' + "[" * 64 + "]" * 64)),
    _body("100,000 levels", Code.JSON_TOO_DEEP, lambda _: b"[" * 100_000, heavy=True),
    _body("5,000 tokens", Code.JSON_TOO_DEEP, lambda f: f.padded('"labels": [' + "1," * 2_500 + "1]")),
    _body("half an object", Code.JSON_INVALID, lambda f: f.body()[:-1]),
    _body("two documents", Code.JSON_INVALID, lambda f: f.body() * 2),
    _body("a repeated name", Code.JSON_INVALID, lambda f: f.padded('"use_case": "vr"')),
    _body("a repeated name, escaped", Code.JSON_INVALID, lambda f: f.padded('"use\\u005fcase": "vr"')),
    _body("NaN", Code.JSON_INVALID, lambda f: f.padded('"on_reject": {"ratio_max": NaN}')),
    _body("1e999", Code.JSON_INVALID, lambda f: f.padded('"on_reject": {"ratio_max": 1e999}')),
    _body("an exponent of 400 digits", Code.JSON_INVALID, lambda f: f.padded(f'"options": {{"a": 1e{"9" * 400}}}')),
    _body("an integer of 65 bits", Code.JSON_INVALID, lambda f: f.padded('"options": {"a": 18446744073709551616}')),
    _body("an integer of 5,000 digits", Code.JSON_INVALID, lambda f: f.padded(f'"options": {{"a": {"9" * 5_000}}}')),
    _body("NUL in a text", Code.JSON_INVALID, lambda f: f.padded('"labels": {"a": "\\u0000"}')),
    _body("a lone surrogate", Code.JSON_INVALID, lambda f: f.padded('"labels": {"a": "\\ud800"}')),
    _body("a text of 65 KiB", Code.JSON_INVALID, lambda f: f.body(labels={"a": "x" * 66_560})),
    _body("a name of 300 bytes", Code.JSON_INVALID, lambda f: f.body(labels={"x" * 300: "a"})),
    _body("a list", Code.SCHEMA_VIOLATION, lambda _: b"[]"),
    _body("a member nobody declared", Code.SCHEMA_VIOLATION, lambda f: f.body(__proto__={"admin": True})),
    _body("no source", Code.SCHEMA_VIOLATION, lambda f: f.body(source=None)),
    _body("an id with a path", Code.SCHEMA_VIOLATION, lambda f: f.body(request_id="../../x")),
    _body("a URI with a password", Code.SCHEMA_VIOLATION, lambda f: f.body(source={"uri": "s3://u:p@bucket/"})),
    _body("a million objects", Code.SCHEMA_VIOLATION, lambda f: f.body(partitioning={"objects_max": 1_000_000})),
    _body("a thousand faults", Code.SCHEMA_VIOLATION, lambda f: f.body(labels={f"A{n}": n for n in range(900)})),
)  # fmt: skip

TERMS: Final = (
    _body("another agency named", Code.AGENCY_MISMATCH, lambda f: f.body(agency="loc")),
    HostileKind("another key", Code.KEY_MISMATCH, lambda f: f.record(f.body(), key=b"\xff\x00")),
    _body("a use case that is not offered", Code.USE_CASE_NOT_AVAILABLE, lambda f: f.body(use_case="vr")),
    _body("a source outside", Code.SOURCE_NOT_ALLOWED, lambda f: f.body(source={"uri": "file:///etc/"})),
    _body("a neighbour's destination", Code.SOURCE_NOT_ALLOWED, lambda f: f.body(destination={"uri": "s3://loc/"})),
    _body("a taken id", Code.REQUEST_CONFLICT, lambda f: f.body(request_id="opening", labels={"a": "b"})),
)

COMMANDS: Final = tuple(
    HostileKind(name, code, make, COMMAND_REJECTED)
    for name, code, make in (
        (
            "a command nobody knows", Code.SCHEMA_VIOLATION,
            lambda f: f.record(f.command(command="drop"), headers={"ce_type": COMMAND_TYPE}),
        ),
        (
            "a viewer's command", Code.ROLE_FORBIDDEN,
            lambda f: f.record(
                f.command(), token=f.token(claims=f.claims(role="viewer")), headers={"ce_type": COMMAND_TYPE}
            ),
        ),
        (
            "a request as a command", Code.SCHEMA_VIOLATION,
            lambda f: f.record(f.body(), headers={"ce_type": COMMAND_TYPE}),
        ),
        (
            "a command with a long reason", Code.SCHEMA_VIOLATION,
            lambda f: f.record(json.dumps({"reason": "x" * 600}).encode(), headers={"ce_type": COMMAND_TYPE}),
        ),
    )
)  # fmt: skip

KINDS: Final[tuple[HostileKind, ...]] = (*ENVELOPES, *TOKENS, *BODIES, *TERMS, *COMMANDS)
# Those that every bound of bytes lets through; dangerous where many of them wait on every Kafka partition.
JUST_UNDER: Final = tuple(kind for kind in KINDS if "just under" in kind.name)
