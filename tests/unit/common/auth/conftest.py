"""A world of three agencies with real keys, in which a test changes one thing and sees what it leads to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import pytest
from jwt import PyJWS

from flux_client.keys import SigningKey, generate_key
from flux_common.auth import (
    Agency,
    Issuer,
    RecordContext,
    Registry,
    Retention,
    Role,
    TokenRefused,
    Verified,
    VerifiedTokens,
    verify,
)
from flux_common.auth.compact import encode_base64url
from flux_common.auth.keyset import KeyRing, KeySet, read_jwks
from flux_common.kernel.codes import Code

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NOW_S = int(NOW.timestamp())  # whole seconds, as claims have them
VALUE = b'{"request_id":"r-1"}'
_JWS = PyJWS()


def b64(data: bytes | str) -> str:
    """Return base64url without padding."""
    return encode_base64url(data.encode() if isinstance(data, str) else data)


def sign(key: SigningKey, header: bytes | str, payload: bytes | str) -> str:
    """Return a JWS over exactly these header and payload bytes, however wrong they are."""
    signing_input = f"{b64(header)}.{b64(payload)}".encode()
    signature = _JWS.get_algorithm_by_name(key.algorithm).sign(signing_input, key.private_key)
    return f"{signing_input.decode()}.{b64(signature)}"


def agency(agency_id: str, **changes: Any) -> Agency:
    """Return an agency with the registry's defaults, unbound tokens allowed once."""
    plain = Agency(
        agency_id=agency_id,
        name=agency_id.upper(),
        suspended=False,
        issuers=frozenset({f"https://{agency_id}.example"}),
        binding_required=False,
        reuse_unbound_tokens=False,
        token_life_s_max=MappingProxyType({Role.ADMIN: 900, Role.OPERATOR: 3600, Role.VIEWER: 3600}),
        queue_age_max_s=None,
        run_window=32,
        agency_window=128,
        rejects_per_minute=600,
        source_prefixes=(f"s3://{agency_id}/",),
        destination_prefixes=(f"s3://{agency_id}-out/",),
        retention=Retention(365, 90, 7),
        audit_required=False,
    )
    return replace(plain, **changes)


@dataclass
class World:
    """A registry, its keys, and the record that tests present tokens with."""

    signers: dict[str, SigningKey]
    registry: Registry
    keys: KeyRing
    record: RecordContext
    now: datetime = NOW
    now_s: int = NOW_S
    value: bytes = VALUE

    def with_agency(self, agency_id: str, **changes: Any) -> World:
        """Return the world in which the agency is different."""
        agencies = {**self.registry.agencies, agency_id: replace(self.registry.agencies[agency_id], **changes)}
        return replace(self, registry=replace(self.registry, agencies=MappingProxyType(agencies)))

    def with_retired(self, agency_id: str, at: datetime) -> World:
        """Return the world in which the key of the agency's issuer is retired since `at`; its generation is as it was."""
        iss = f"https://{agency_id}.example"
        issuer = replace(self.registry.issuers[iss], retired_at={self.signers[agency_id].kid: at})
        issuers = MappingProxyType({**self.registry.issuers, iss: issuer})
        return replace(self, registry=replace(self.registry, issuers=issuers))

    def with_record(self, **changes: Any) -> World:
        """Return the world in which the record is different."""
        return replace(self, record=replace(self.record, **changes))

    def header(self, agency_id: str = "nasa", **changes: Any) -> dict[str, Any]:
        """Return a good header of the agency's signer, with changes; a value of None takes the name away."""
        key = self.signers[agency_id]
        return _changed({"alg": key.algorithm, "kid": key.kid, "typ": "JWT"}, changes)

    def payload(self, agency_id: str = "nasa", **changes: Any) -> dict[str, Any]:
        """Return good claims of the agency, with changes; a value of None takes the name away."""
        good = {
            "iss": f"https://{agency_id}.example",
            "sub": "producer-1",
            "aud": "flux",
            "iat": NOW_S - 60,
            "exp": NOW_S + 540,
            "jti": "jti-1",
            "agency": agency_id,
            "role": "operator",
        }
        return _changed(good, changes)

    def token(self, agency_id: str = "nasa", header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """Return a token of the agency's signer, good but for the changes."""
        head = self.header(agency_id, **(header or {}))
        return sign(self.signers[agency_id], json.dumps(head), json.dumps(self.payload(agency_id, **claims)))

    def sign(self, header: bytes | str, payload: bytes | str, agency_id: str = "nasa") -> str:
        """Return a token of the agency's signer over exactly these bytes."""
        return sign(self.signers[agency_id], header, payload)

    def raw(self, header: str, payload: str | None = None) -> str:
        """Return a token with exactly this header text, and good claims or exactly this payload."""
        return self.sign(header, json.dumps(self.payload()) if payload is None else payload)

    def refusal(self, token: str, memory: VerifiedTokens | None = None) -> TokenRefused:
        """Return the refusal that `token` meets here."""
        with pytest.raises(TokenRefused) as refused:
            self.verify(token, memory)
        return refused.value

    def code(self, token: str, memory: VerifiedTokens | None = None) -> Code:
        """Return the code of the refusal that `token` meets here."""
        return self.refusal(token, memory).reason

    def verify(self, token: str, memory: VerifiedTokens | None = None) -> Verified:
        """Verify a token in this world."""
        return verify(b"Bearer " + token.encode(), self.record, self.registry, self.keys, self.now, memory)


def _changed(good: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


@pytest.fixture(scope="session")
def signers() -> dict[str, SigningKey]:
    """One key pair per agency, of both kinds that development uses."""
    return {"nasa": generate_key("ES256"), "loc": generate_key("EdDSA"), "nara": generate_key("ES256")}


@pytest.fixture
def world(signers: dict[str, SigningKey], tmp_path_factory: pytest.TempPathFactory) -> World:
    """Three agencies, each with an issuer of its own."""
    folder = tmp_path_factory.getbasetemp()
    issuers, sets = {}, {}
    for agency_id, key in signers.items():
        iss = f"https://{agency_id}.example"
        algorithms = frozenset({"ES256", "EdDSA"})
        issuers[iss] = Issuer(iss, folder / f"{agency_id}.json", algorithms, "flux", frozenset({agency_id}))
        sets[iss] = KeySet(read_jwks(json.dumps({"keys": [key.public_jwk()]}).encode(), iss), NOW - timedelta(hours=1))
    registry = Registry(MappingProxyType({name: agency(name) for name in signers}), MappingProxyType(issuers), "digest")
    record = RecordContext(
        topic="flux.nasa.run.requests.v1",
        key=b"r-1",
        value_sha256=hashlib.sha256(VALUE).digest(),
        appended_at=NOW,
        agency_id="nasa",
    )
    return World(signers, registry, KeyRing(MappingProxyType(sets), "generation-1"), record)
