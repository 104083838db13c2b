"""Minted tokens are bound to their record, and what is no token is not sent."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flux_client.development import EXAMPLE_AGENCIES, DevelopmentAgency, write_development_registry
from flux_client.keys import load_key, private_key_path
from flux_client.tokens import IssuerKey, authorization
from flux_common.auth import Binding, RecordContext, Role, TokenRefused, Verified, load_trust, verify

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
