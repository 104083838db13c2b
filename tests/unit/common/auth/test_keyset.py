"""Key sets: what a JWKS may hold, and that one bad member refuses the whole set with its place and reason."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from flux_client.keys import generate_key
from flux_common.auth import ConfigurationRefused, KeyRing, load_keys
from flux_common.auth.compact import encode_base64url
from flux_common.auth.keyset import JWKS_BYTES_MAX, JWKS_KEYS_MAX, read_jwks

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import World

P256 = generate_key("ES256").public_jwk()
ED25519 = generate_key("EdDSA").public_jwk()


def unsigned(number: int) -> str:
    """Return a JWK integer: big-endian without leading zeros, base64url."""
    return encode_base64url(number.to_bytes((number.bit_length() + 7) // 8))


def rsa_jwk(modulus: int, exponent: int = 65537, **changes: Any) -> dict[str, Any]:
    """Return an RSA member."""
    return {"kty": "RSA", "alg": "RS256", "kid": "rsa", "n": unsigned(modulus), "e": unsigned(exponent), **changes}


@pytest.fixture(scope="module")
def modulus() -> int:
    """An honest modulus of 2048 bits."""
    return rsa.generate_private_key(65537, 2048).public_key().public_numbers().n


def jwks(*members: Any) -> bytes:
    """Return the JSON of a set."""
    return json.dumps({"keys": members}).encode()


def faults(data: bytes) -> list[str]:
    """Return the faults for which a set is refused."""
    with pytest.raises(ConfigurationRefused) as refused:
        read_jwks(data, "jwks")
    return [str(fault) for fault in refused.value.faults]


def test_a_set_of_every_kind_of_key_is_read(modulus: int) -> None:
    """RSA, P-256 and Ed25519 keys are read, each with its one algorithm."""
    keys = read_jwks(jwks(P256, ED25519, rsa_jwk(modulus, use="sig", key_ops=["verify"], x5t="ignored")), "jwks")

    assert [key.algorithm for key in keys.values()] == ["ES256", "EdDSA", "RS256"]


def test_the_thumbprint_is_that_of_rfc_7638() -> None:
    """The example of RFC 7638 §3.1."""
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknj"
        "hMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQv"
        "RL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnq"
        "DKgw"
    )
    keys = read_jwks(jwks({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}), "jwks")

    assert keys["2011-04-29"].thumbprint == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"kty": "oct", "k": "AAAA"}, "symmetric or private"),
        ({"kty": "oct"}, "symmetric or private"),
        ({"d": "AAAA"}, "symmetric or private"),
        ({"k": "AAAA"}, "symmetric or private"),
        ({"kid": None}, "kid is missing"),
        ({"kid": ""}, "kid is missing"),
        ({"kid": "a/b"}, "kid is missing"),
        ({"kid": 1}, "kid is missing"),
        ({"alg": None}, "alg is missing"),
        ({"alg": "ES384"}, "alg is missing"),
        ({"alg": "HS256"}, "alg is missing"),
        ({"alg": "none"}, "alg is missing"),
        ({"alg": ["ES256"]}, "alg is missing"),
        ({"alg": "RS256"}, "kty is not RSA"),
        ({"alg": "EdDSA"}, "kty is not OKP"),
        ({"use": "enc"}, "use is not sig"),
        ({"use": ["sig"]}, "use is not sig"),
        ({"key_ops": ["sign"]}, "key_ops"),
        ({"key_ops": ["sign", "verify"]}, "key_ops"),
        ({"key_ops": ["verify", "verify"]}, "key_ops"),
        ({"key_ops": []}, "key_ops"),
        ({"key_ops": "verify"}, "key_ops"),
        ({"crv": "P-384"}, "crv is not P-256"),
        ({"crv": "secp256k1"}, "crv is not P-256"),
        ({"crv": None}, "crv is not P-256"),
        ({"x": None}, "x is missing"),
        ({"x": 7}, "x is missing"),
        ({"x": ""}, "x is missing"),
        ({"x": "ü"}, "x is missing"),
        ({"x": "AAAA"}, "x is not 32 bytes"),
        ({"x": P256["x"] + "="}, "x is not canonical"),
        ({"x": "A" * 43}, "not on P-256"),
        ({"kty": "OKP"}, "kty is not EC"),
    ],
)
def test_a_member_that_may_not_verify_refuses_the_set(changes: dict[str, Any], problem: str) -> None:
    """Whatever is wrong with the second key, the first is not used either, and the fault names the second."""
    spoiled = {name: value for name, value in {**P256, **changes}.items() if value is not None}
    found = faults(jwks(ED25519, spoiled))

    assert len(found) == 1
    assert found[0].startswith("jwks.keys[1]: ")
    assert problem in found[0]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda n: rsa_jwk(n >> 1024 | 1), "bits"),
        (lambda n: rsa_jwk(n >> 1 | 1), "bits"),
        (lambda n: rsa_jwk((1 << 8192) + 1), "bits"),
        (lambda n: rsa_jwk(n, 3), "exponent"),
        (lambda n: rsa_jwk(n, 1), "exponent"),
        (lambda n: rsa_jwk(n, 65536), "exponent"),
        (lambda n: rsa_jwk(n, 65535), "exponent"),
        (lambda n: rsa_jwk(n, (1 << 64) + 1), "exponent"),
        (lambda n: rsa_jwk(n - 1), "small factor"),
        (lambda n: rsa_jwk(n - n % 3), "small factor"),
        (lambda n: rsa_jwk(n, n=encode_base64url(b"\0" + n.to_bytes(256))), "leading zeros"),
        (lambda n: rsa_jwk(n, e=encode_base64url(b"\0\1\0\1")), "leading zeros"),
        (lambda n: rsa_jwk(n, n="A" * 5000), "too long"),
        (lambda n: rsa_jwk(n, kty="EC"), "kty is not RSA"),
        (lambda n: rsa_jwk(n, alg="RS512"), "alg is missing"),
        (lambda n: rsa_jwk(n, p="AAAA"), "symmetric or private"),
    ],
)
def test_a_weak_rsa_key_refuses_the_set(modulus: int, change: Any, problem: str) -> None:
    """Too short, too long, small or even exponents, small factors and other spellings."""
    found = faults(jwks(change(modulus)))

    assert len(found) == 1
    assert problem in found[0]


def test_a_roca_key_refuses_the_set() -> None:
    """A modulus that is a power of 65537 modulo every small prime comes from the broken library (CVE-2017-15361)."""
    primorial = prod(p for p in range(2, 702) if all(p % q for q in range(2, p)))
    modulus = (1 << 2047) // primorial * primorial + primorial + pow(65537, 123_456_789, primorial)

    assert faults(jwks(rsa_jwk(modulus))) == ["jwks.keys[0]: the modulus has the fingerprint of ROCA (CVE-2017-15361)"]


@pytest.mark.parametrize(
    "encoded",
    [
        "00" * 32,
        "01" + "00" * 31,
        "01" + "00" * 30 + "80",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "ff",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "ff" * 32,
    ],
)
def test_an_ed25519_key_of_small_order_refuses_the_set(encoded: str) -> None:
    """Signatures under such a point can be made without any private key; so can other spellings of a good one."""
    found = faults(jwks({**ED25519, "x": encode_base64url(bytes.fromhex(encoded))}))

    assert "small order" in found[0] or "canonically" in found[0]


def test_repeated_kids_and_keys_refuse_the_set() -> None:
    """One kid names one key, and one key has one kid (PyJWT takes the first)."""
    assert faults(jwks(P256, {**ED25519, "kid": P256["kid"]})) == ["jwks.keys[1]: the kid is repeated"]
    assert faults(jwks(P256, {**P256, "kid": "other"})) == ["jwks.keys[1]: the same key stands here twice"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":[]}',
        b'{"keys":[1]}',
        b'{"keys":[],"keys":[]}',
        b'{"keys":[{"kid":"a","kid":"b"}]}',
        b'\xef\xbb\xbf{"keys":[]}',
        b'{"keys":[[[[[[1]]]]]]}',
        b'{"keys":[{"kid":"\xff"}]}',
        b'{"keys":[null]}',
    ],
)
def test_what_is_no_strict_set_is_refused(data: bytes) -> None:
    """Repeated names, another shape, other encodings."""
    assert faults(data)


def test_a_set_has_a_largest_number_of_keys() -> None:
    """Nobody rotates among hundreds of keys."""
    assert [f"jwks.keys: not a list of 1 to {JWKS_KEYS_MAX} keys"] == faults(jwks(*[P256] * (JWKS_KEYS_MAX + 1)))


def test_every_fault_of_a_set_is_told_at_once() -> None:
    """One round of corrections."""
    spoiled = [{**P256, "use": "enc"}, ED25519, {"kty": "oct", "kid": "s"}]

    assert [fault.split(":")[0] for fault in faults(jwks(*spoiled))] == ["jwks.keys[0]", "jwks.keys[2]"]


# The ring of all issuers.


def write_sets(world: World, folder: Path) -> World:
    """Write every issuer's set into `folder`, and return the world that reads them from there."""
    issuers = {}
    for agency_id, signer in world.signers.items():
        iss = f"https://{agency_id}.example"
        (folder / f"{agency_id}.json").write_bytes(jwks(signer.public_jwk()))
        issuers[iss] = replace(world.registry.issuers[iss], jwks=folder / f"{agency_id}.json")
    return replace(world, registry=replace(world.registry, issuers=MappingProxyType(issuers)))


@pytest.fixture
def filed(world: World, tmp_path: Path) -> World:
    """The world with its key sets in files."""
    return write_sets(world, tmp_path)


def ring_faults(world: World) -> list[str]:
    """Return the faults for which the ring is refused."""
    with pytest.raises(ConfigurationRefused) as refused:
        load_keys(world.registry, world.now)
    return [str(fault) for fault in refused.value.faults]


def generation(world: World) -> str:
    """Return the generation of the keys as they lie in files."""
    return load_keys(world.registry, world.now).generation


def test_a_ring_holds_every_issuers_keys(filed: World) -> None:
    """What is loaded verifies what the signers sign, and is fresh as of now."""
    filed.keys = load_keys(filed.registry, filed.now)

    assert filed.verify(filed.token()).agency_id == "nasa"
    assert filed.keys.of("https://nasa.example").confirmed_at == filed.now


def test_the_generation_changes_with_any_byte_of_keys_or_registry(filed: World) -> None:
    """Equal files have one generation; a changed set or another registry has another."""
    before = generation(filed)
    other_registry = replace(filed, registry=replace(filed.registry, digest="other"))
    path = filed.registry.issuers["https://nasa.example"].jwks

    assert before == generation(filed)
    assert before != generation(other_registry)
    path.write_bytes(path.read_bytes() + b" ")
    assert before != generation(filed)


def test_one_key_under_two_issuers_refuses_the_ring(filed: World) -> None:
    """Two issuers with one key are one signer with two names."""
    shared = {**filed.signers["nasa"].public_jwk(), "kid": "mine"}
    filed.registry.issuers["https://loc.example"].jwks.write_bytes(jwks(shared))
    expected = 'issuers["https://nasa.example"].keys: "{}" is also a key of the issuer "https://loc.example"'

    assert [expected.format(filed.signers["nasa"].kid)] == ring_faults(filed)


def test_a_missing_or_oversized_file_refuses_the_ring(filed: World) -> None:
    """Both are named, in one go."""
    nasa, loc = (filed.registry.issuers[f"https://{name}.example"].jwks for name in ("nasa", "loc"))
    nasa.unlink()
    loc.write_bytes(b" " * (JWKS_BYTES_MAX + 1))

    assert [f"{loc}: larger than {JWKS_BYTES_MAX} bytes", f"{nasa}: cannot be read (No such file or directory)"] == (
        ring_faults(filed)
    )


def test_keys_are_stale_a_day_after_they_were_confirmed(filed: World) -> None:
    """The limit itself is fresh."""
    ring: KeyRing = load_keys(filed.registry, filed.now)
    key_set = ring.of("https://nasa.example")

    assert not key_set.is_stale(filed.now + timedelta(hours=24))
    assert key_set.is_stale(filed.now + timedelta(hours=24, seconds=1))
