"""Minted tokens are bound to their record, and what is no token is not sent."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flux_client.development import EXAMPLE_AGENCIES, DevelopmentAgency, write_development_registry
from flux_client.keys import SigningKey, generate_key, load_key, private_key_path
from flux_client.tokens import IssuerKey, Record, Right, authorization, key_named_in
from flux_common.auth import Binding, RecordContext, Role, TokenRefused, Verified, load_trust, verify
from flux_common.contracts.envelope import Headers

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
VALUE = b'{"request_id":"r-1"}'
NASA = "nasa"


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return write_development_registry(tmp_path, EXAMPLE_AGENCIES)


def verified(registry: Path, token: str, value: bytes) -> Verified:
    """Verify a token that came with `value` on the agency's requests topic."""
    trust = load_trust(registry, NOW)
    record = RecordContext("flux.nasa.run.requests.v1", b"r-1", hashlib.sha256(value).digest(), NOW, NASA)
    return verify(dict(authorization(token))["authorization"], record, trust.registry, trust.keys, NOW)


def test_a_minted_token_is_accepted_for_its_record(registry: Path) -> None:
    """The verifier accepts it for the value it was minted for, as bound by claim."""
    key = IssuerKey(load_key(private_key_path(registry.parent, NASA)), role="admin", sub="tester")

    found = verified(registry, key.token(NASA, NOW, VALUE), VALUE)

    assert (found.role, found.sub, found.binding) == (Role.ADMIN, "tester", Binding.CLAIM)


def test_a_minted_token_is_refused_for_other_bytes(registry: Path) -> None:
    """It serves no other value."""
    token = IssuerKey(load_key(private_key_path(registry.parent, NASA))).token(NASA, NOW, VALUE)

    with pytest.raises(TokenRefused) as refused:
        verified(registry, token, b"{}")

    assert refused.value.code == "BINDING_MISMATCH"


def test_the_same_use_has_one_jti_and_another_use_another(registry: Path) -> None:
    """Agency, value and instant name the use; minting it twice names it twice."""
    key = IssuerKey(load_key(private_key_path(registry.parent, NASA)))
    uses = [key.token(NASA, NOW, VALUE), key.token(NASA, NOW, VALUE)]
    others = [key.token(NASA, NOW + timedelta(milliseconds=1), VALUE), key.token(NASA, NOW, b"{}")]

    assert uses[0] == uses[1]
    assert len({*uses, *others}) == 3


def test_without_an_issuer_the_agencys_development_issuer_is_named() -> None:
    """The issuer is the one that the development registry lists."""
    agency = DevelopmentAgency(NASA, "NASA")

    assert agency.iss == "https://issuer.nasa.example"


@pytest.mark.parametrize("token", ["", "a.b", "a.b.c\r\nx: y", "Bearer a.b.c", "a.b.c "])
def test_what_is_no_token_is_not_sent_and_not_shown(token: str) -> None:
    """A header is made of a compact JWS alone; the error does not repeat what was given."""
    with pytest.raises(ValueError, match="three base64url parts") as refused:
        authorization(token)

    assert not token or token not in str(refused.value)


def test_a_token_becomes_the_authorization_header() -> None:
    """The header is `authorization: Bearer <token>`."""
    assert authorization("a.b-_.c") == [("authorization", b"Bearer a.b-_.c")]


RECORD = Record(NASA, "flux.nasa.run.requests.v1", "r-1", VALUE)


def judged(registry: Path, headers: Headers, record: Record = RECORD) -> Verified:
    """Verify the headers that a right gave, on `record`."""
    trust, named = load_trust(registry, NOW), dict(headers)
    digest = hashlib.sha256(record.value).digest()
    context = RecordContext(record.topic, record.key.encode(), digest, NOW, NASA, proof=named.get("flux-proof"))
    return verify(named["authorization"] or b"", context, trust.registry, trust.keys, NOW)


@pytest.fixture
def issuer(registry: Path) -> IssuerKey:
    """NASA's development key."""
    return IssuerKey(load_key(private_key_path(registry.parent, NASA)))


def test_one_token_and_its_key_serve_many_records(registry: Path, issuer: IssuerKey) -> None:
    """Each with a proof of its own, which is no proof for the other."""
    bearer = generate_key("EdDSA")
    right = Right(issuer.token(NASA, NOW, proof_key=bearer), None, bearer)
    other = replace(RECORD, key="r-2", value=b'{"request_id":"r-2"}')
    found = [judged(registry, right.headers(record, NOW), record) for record in (RECORD, other)]

    assert {one.binding for one in found} == {Binding.PROOF}
    assert len({one.single_use for one in found}) == 2
    with pytest.raises(TokenRefused) as refused:
        judged(registry, right.headers(RECORD, NOW), other)
    assert refused.value.code == "BINDING_MISMATCH"


def test_the_same_record_at_the_same_instant_is_the_same_use(registry: Path, issuer: IssuerKey) -> None:
    """As it is for a claim."""
    bearer = generate_key()
    right = Right(issuer.token(NASA, NOW, proof_key=bearer), None, bearer)
    uses = {judged(registry, right.headers(RECORD, NOW)).single_use for _ in range(2)}

    assert len(uses) == 1


def test_with_both_keys_tokens_are_minted_for_proofs(registry: Path, issuer: IssuerKey) -> None:
    """In development; without a proof key they are minted for the value."""
    bearer = generate_key()

    assert judged(registry, Right(None, issuer, bearer).headers(RECORD, NOW)).binding is Binding.PROOF
    assert judged(registry, Right(None, issuer, None).headers(RECORD, NOW)).binding is Binding.CLAIM


def test_what_does_not_go_together_is_told_before_anything_is_sent(issuer: IssuerKey) -> None:
    """Nothing of the token is said."""
    bearer, stranger = generate_key(), generate_key()
    confined, free = issuer.token(NASA, NOW, proof_key=bearer), issuer.token(NASA, NOW, VALUE)
    wrong: list[tuple[str | None, IssuerKey | None, SigningKey | None]] = [
        (None, None, None),
        (free, issuer, None),
        (confined, None, None),
        (confined, None, stranger),
        (free, None, bearer),
        ("a.b.c", None, bearer),
        ("no token", None, None),
    ]
    for token, key, proof_key in wrong:
        with pytest.raises(ValueError, match=r"token") as told:
            Right(token, key, proof_key)
        assert "eyJ" not in str(told.value)


@pytest.mark.parametrize("payload", ["", "bm9uZQ", "W10", "e30", "eyJjbmYiOjF9", "eyJjbmYiOnsiamt0IjoxfX0"])
def test_a_token_that_names_no_key_names_none(payload: str) -> None:
    """Whatever its payload is."""
    assert key_named_in(f"a.{payload}.c") is None
