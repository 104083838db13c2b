"""Development keys and tokens: kept, private, and accepted by the verifier they are made for."""

from __future__ import annotations

import hashlib
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from flux_client.development import AUDIENCE, EXAMPLE_AGENCIES, DevelopmentAgency, write_development_registry
from flux_client.keys import (
    DevelopmentAlgorithm,
    SigningKey,
    TokenClaims,
    ensure_key,
    generate_key,
    jwks_path,
    load_key,
    mint_proof,
    mint_token,
    private_key_path,
)
from flux_common.auth import Binding, RecordContext, Verified, load_trust, verify

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
VALUE = b'{"request_id":"r-1"}'


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return every file's content and time."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def claims(
    agency: DevelopmentAgency, *, value: bytes | None = None, proof_key: SigningKey | None = None
) -> TokenClaims:
    """Return an operator's claims."""
    return TokenClaims(
        iss=agency.iss,
        sub="producer-1",
        aud=AUDIENCE,
        agency=agency.agency_id,
        role="operator",
        jti="jti-1",
        issued_at=NOW,
        request_value=value,
        proof_key=proof_key,
    )


def verified(folder: Path, agency: DevelopmentAgency, token: str, proof: str | None = None) -> Verified:
    """Verify a token against the development registry in `folder`."""
    trust = load_trust(folder / "agencies.yaml", NOW)
    topic = f"flux.{agency.agency_id}.run.requests.v1"
    record = RecordContext(topic, b"r-1", hashlib.sha256(VALUE).digest(), NOW, agency.agency_id)
    if proof is not None:
        record = RecordContext(topic, b"r-1", record.value_sha256, NOW, agency.agency_id, proof=proof.encode())
    return verify(b"Bearer " + token.encode(), record, trust.registry, trust.keys, NOW)


@pytest.mark.parametrize("agency", EXAMPLE_AGENCIES, ids=lambda agency: agency.agency_id)
def test_each_example_agency_can_ask(tmp_path: Path, agency: DevelopmentAgency) -> None:
    """A token minted with the agency's key is accepted unbound, bound by claim, and bound by proof."""
    write_development_registry(tmp_path)
    key, bearer = load_key(private_key_path(tmp_path, agency.agency_id)), generate_key("EdDSA")
    confined = mint_token(key, claims(agency, proof_key=bearer))
    topic = f"flux.{agency.agency_id}.run.requests.v1"
    proof = mint_proof(bearer, confined, topic=topic, record_key="r-1", value=VALUE, jti="p-1", issued_at=NOW)

    assert [
        verified(tmp_path, agency, mint_token(key, claims(agency))).binding,
        verified(tmp_path, agency, mint_token(key, claims(agency, value=VALUE))).binding,
        verified(tmp_path, agency, confined, proof).binding,
    ] == [Binding.NONE, Binding.CLAIM, Binding.PROOF]


def test_the_second_time_changes_nothing(tmp_path: Path) -> None:
    """Keys are kept, and no file is touched: nothing reloads."""
    write_development_registry(tmp_path / "keys")
    before = snapshot(tmp_path / "keys")
    write_development_registry(tmp_path / "keys")

    assert before == snapshot(tmp_path / "keys")


def test_the_registry_is_rewritten_and_the_keys_are_kept(tmp_path: Path) -> None:
    """Another source folder is another registry with the same keys."""
    write_development_registry(tmp_path)
    keys = {name: found for name, found in snapshot(tmp_path).items() if name != "agencies.yaml"}
    path = write_development_registry(tmp_path, source_prefixes=["file:///srv/archive/"])

    assert keys == {name: found for name, found in snapshot(tmp_path).items() if name != "agencies.yaml"}
    assert load_trust(path, NOW).registry.agencies["nasa"].may_read("file:///srv/archive/box-1/")


def test_an_agency_may_use_its_own_folders_and_not_its_neighbours(tmp_path: Path) -> None:
    """Development keeps tenants apart, too."""
    folder = tmp_path / "with space" / "keys"
    nasa = load_trust(write_development_registry(folder), NOW).registry.agencies["nasa"]
    beside = folder.parent.as_uri()

    assert nasa.may_read(f"{beside}/archives/nasa/box-1/")
    assert nasa.may_write(f"{beside}/datasets/nasa/box-1/")
    assert not nasa.may_read(f"{beside}/archives/national-archives/box-1/")
    assert not nasa.may_write(f"{beside}/archives/nasa/box-1/")


def test_a_private_key_is_for_its_owner_and_never_for_the_repository(tmp_path: Path) -> None:
    """Mode 0600, and a `.gitignore` that covers the whole folder."""
    ensure_key(tmp_path / "keys", "nasa")

    assert stat.S_IMODE(private_key_path(tmp_path / "keys", "nasa").stat().st_mode) == 0o600
    assert (tmp_path / "keys" / ".gitignore").read_text() == "*\n"
    assert "d" not in json.loads(jwks_path(tmp_path / "keys", "nasa").read_bytes())["keys"][0]


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
def test_a_lost_key_set_is_made_again_from_its_key(tmp_path: Path, algorithm: DevelopmentAlgorithm) -> None:
    """The private key is the authority, its algorithm included."""
    made = ensure_key(tmp_path, "nasa", algorithm)
    jwks_path(tmp_path, "nasa").unlink()
    kept = ensure_key(tmp_path, "nasa", "ES256")

    assert made.public_jwk() == kept.public_jwk()
    assert {"keys": [made.public_jwk()]} == json.loads(jwks_path(tmp_path, "nasa").read_bytes())


def test_the_first_key_counts_when_several_are_made_at_once(tmp_path: Path) -> None:
    """Processes that start together end up with one key, and leave no other file behind."""
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: ensure_key(tmp_path, "nasa"), range(8)))

    assert {load_key(private_key_path(tmp_path, "nasa")).kid} == {key.kid for key in keys}
    assert {".gitignore", "nasa.jwks.json", "nasa.key.pem"} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("kind", ["rsa", "p384"])
def test_a_key_of_another_kind_is_refused(tmp_path: Path, kind: str) -> None:
    """Development signs with P-256 and Ed25519 alone."""
    key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP384R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "k.pem").write_bytes(pem)

    with pytest.raises(ValueError, match="P-256"):
        load_key(tmp_path / "k.pem")
