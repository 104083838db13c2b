"""The flux-proof: a token confined to a key is worth nothing without that key's word for this record."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flux_client.keys import SigningKey, generate_key, mint_proof
from flux_common.auth import Binding, TokenRefused
from flux_common.auth.compact import encode_base64url
from flux_common.kernel.codes import Code

if TYPE_CHECKING:
    from conftest import World


@pytest.fixture(scope="module", params=["ES256", "EdDSA"])
def bearer(request: pytest.FixtureRequest) -> SigningKey:
    """The bearer's own key, of either kind."""
    return generate_key(request.param)


def good_proof(world: World, bearer: SigningKey, token: str, **changes: Any) -> str:
    """Return a proof of `bearer` for the world's record, good but for the changes."""
    arguments: dict[str, Any] = {
        "topic": world.record.topic,
        "record_key": "r-1",
        "value": world.value,
        "jti": "proof-1",
        "issued_at": world.now,
    }
    return mint_proof(bearer, token, **{**arguments, **changes})


def confined(world: World, bearer: SigningKey, **claims: Any) -> str:
    """Return a token confined to the bearer's key."""
    return world.token(cnf={"jkt": bearer.kid}, **claims)


def code(world: World, token: str, proof: str | None) -> Code:
    """Return the code of the refusal that token and proof meet."""
    with pytest.raises(TokenRefused) as refused:
        world.with_record(proof=None if proof is None else proof.encode()).verify(token)
    assert refused.value.actor is not None
    return refused.value.reason


def test_a_proof_binds_the_token_to_the_record(world: World, bearer: SigningKey) -> None:
    """Binding by proof satisfies an agency that requires binding; the proof's id is single use, not the token's."""
    token = confined(world, bearer)
    proof = good_proof(world, bearer, token).encode()
    verified = world.with_agency("nasa", binding_required=True).with_record(proof=proof).verify(token)

    assert Binding.PROOF is verified.binding
    assert hashlib.sha256(f"proof\0{bearer.kid}\0proof-1".encode()).hexdigest() == verified.single_use


def test_one_token_serves_many_requests_each_with_its_proof(world: World, bearer: SigningKey) -> None:
    """Two proofs of one token are two uses."""
    token = confined(world, bearer)
    uses = {
        world.with_record(proof=good_proof(world, bearer, token, jti=jti).encode()).verify(token).single_use
        for jti in ("proof-1", "proof-2")
    }

    assert len(uses) == 2


def test_a_confined_token_without_its_proof_is_refused(world: World, bearer: SigningKey) -> None:
    """Leaving the proof out does not make a stolen token an unbound one, even where unbound ones are allowed."""
    free = world.with_agency("nasa", reuse_unbound_tokens=True)

    assert code(free, confined(world, bearer), None) is Code.BINDING_REQUIRED


def test_a_proof_for_an_unconfined_token_is_refused(world: World, bearer: SigningKey) -> None:
    """Anyone can make a key and a proof: without `cnf` it proves nothing."""
    token = world.token()

    assert code(world, token, good_proof(world, bearer, token)) is Code.BINDING_MISMATCH


def test_a_proof_by_another_key_is_refused(world: World, bearer: SigningKey) -> None:
    """The proof's thumbprint equals the token's `cnf.jkt`."""
    token = confined(world, bearer)

    assert code(world, token, good_proof(world, generate_key("ES256"), token)) is Code.BINDING_MISMATCH


@pytest.mark.parametrize(
    "changes",
    [
        {"topic": "flux.nasa.run.requests.v2"},
        {"record_key": "r-2"},
        {"record_key": ""},
        {"value": b"{}"},
        {"jti": ""},
        {"jti": "a b"},
        {"jti": 7},
        {"jti": "a" * 257},
    ],
)
def test_a_proof_for_another_record_is_refused(world: World, bearer: SigningKey, changes: dict[str, Any]) -> None:
    """Topic, key and value are the record's own, and the proof has an id."""
    token = confined(world, bearer)

    assert code(world, token, good_proof(world, bearer, token, **changes)) is Code.BINDING_MISMATCH


def test_a_proof_for_another_token_is_refused(world: World, bearer: SigningKey) -> None:
    """`ath` is the digest of the very token."""
    proof = good_proof(world, bearer, confined(world, bearer, jti="jti-2"))

    assert code(world, confined(world, bearer), proof) is Code.BINDING_MISMATCH


@pytest.mark.parametrize("seconds", [-91, 31])
def test_a_proof_is_made_between_its_token_and_its_arrival(world: World, bearer: SigningKey, seconds: int) -> None:
    """A proof from before the token (iat − leeway) or from the future (arrival + leeway) is refused."""
    token = confined(world, bearer)  # issued 60 s before now
    proof = good_proof(world, bearer, token, issued_at=world.now + timedelta(seconds=seconds))

    assert code(world, token, proof) is Code.BINDING_MISMATCH


def test_a_record_without_a_text_key_cannot_be_proven(world: World, bearer: SigningKey) -> None:
    """`rqk` is the record key as text: no key, or one that is no text, equals nothing."""
    token = confined(world, bearer)
    proof = good_proof(world, bearer, token)

    assert code(world.with_record(key=None), token, proof) is Code.BINDING_MISMATCH
    assert code(world.with_record(key=b"\xff"), token, proof) is Code.BINDING_MISMATCH


def test_claim_and_proof_must_both_hold(world: World, bearer: SigningKey) -> None:
    """A token may be bound twice; a good proof does not excuse a wrong claim."""
    wrong = encode_base64url(hashlib.sha256(b"other").digest())
    token = confined(world, bearer, request_hash=wrong)

    assert code(world, token, good_proof(world, bearer, token)) is Code.BINDING_MISMATCH


def proof_parts(world: World, bearer: SigningKey, token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and payload of a good proof, to be changed and signed again."""
    header = {"typ": "flux-proof+jwt", "alg": bearer.algorithm, "jwk": bearer.public_jwk()}
    payload = {
        "jti": "proof-1",
        "iat": world.now_s,
        "ath": encode_base64url(hashlib.sha256(token.encode()).digest()),
        "rqh": encode_base64url(world.record.value_sha256),
        "rqk": "r-1",
        "aud": f"kafka:{world.record.topic}",
    }
    return header, payload


def resign(world: World, bearer: SigningKey, header: dict[str, Any], payload: dict[str, Any]) -> str:
    """Return the proof over these parts, signed by the bearer."""
    signing = replace(world, signers={"nasa": bearer})
    return signing.sign(json.dumps(header), json.dumps(payload))


def test_the_parts_are_good_before_they_are_spoiled(world: World, bearer: SigningKey) -> None:
    """What the next test spoils is accepted as it is: each refusal there has one reason."""
    token = confined(world, bearer)
    proof = resign(world, bearer, *proof_parts(world, bearer, token))

    assert world.with_record(proof=proof.encode()).verify(token).binding is Binding.PROOF


@pytest.mark.parametrize(
    ("header_changes", "payload_changes"),
    [
        ({"typ": "JWT"}, {}),
        ({"typ": None}, {}),
        ({"kid": "k"}, {}),
        ({"alg": "RS256"}, {}),
        ({"alg": "none"}, {}),
        ({"jwk": None}, {}),
        ({"jwk": "key"}, {}),
        ({"jwk": {}}, {}),
        ({"jwk": {"kty": "oct", "k": "AAAA"}}, {}),
        ({"jwk": {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}}, {}),
        ({}, {"iat": "1"}),
        ({}, {"iat": True}),
        ({}, {"iat": None}),
        ({}, {"ath": None}),
        ({}, {"rqh": None}),
        ({}, {"rqk": ["r-1"]}),
        ({}, {"aud": ["kafka:flux.nasa.run.requests.v1"]}),
    ],
)
def test_a_proof_keeps_to_its_form(
    world: World, bearer: SigningKey, header_changes: dict[str, Any], payload_changes: dict[str, Any]
) -> None:
    """Type, key, algorithm and every claim are checked; the header brings a public key and nothing else."""
    token = confined(world, bearer)
    header, payload = proof_parts(world, bearer, token)
    proof = resign(world, bearer, {**header, **header_changes}, {**payload, **payload_changes})

    assert code(world, token, proof) is Code.BINDING_MISMATCH


@pytest.mark.parametrize("proof", ["", "a.b", "a.b.c", "A" * 9000])
def test_what_is_no_jws_is_no_proof(world: World, bearer: SigningKey, proof: str) -> None:
    """The form is the token's: three base64url parts of at most 8 KiB."""
    assert code(world, confined(world, bearer), proof) is Code.BINDING_MISMATCH


def test_a_private_key_in_a_proof_is_refused(world: World, bearer: SigningKey) -> None:
    """A header that shows the private key has given it away."""
    token = confined(world, bearer)
    header, payload = proof_parts(world, bearer, token)
    header["jwk"] = {**header["jwk"], "d": "AAAA"}

    assert code(world, token, resign(world, bearer, header, payload)) is Code.BINDING_MISMATCH
