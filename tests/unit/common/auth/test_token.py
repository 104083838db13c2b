"""The steps of token verification: each refusal by its code, and what a good token proves."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from flux_client.keys import generate_key
from flux_common.auth import Binding, Role, TokenRefused, Verified, VerifiedTokens, verify
from flux_common.auth.compact import encode_base64url
from flux_common.kernel.codes import Code

if TYPE_CHECKING:
    from conftest import World


# What a good token proves.


def test_a_good_token_proves_who_asks(world: World) -> None:
    """A token that passes every step gives the identity, its end, its binding and the digest for replay."""
    kid = world.signers["nasa"].kid
    iss = "https://nasa.example"

    assert world.verify(world.token()) == Verified(
        agency_id="nasa",
        iss=iss,
        sub="producer-1",
        role=Role.OPERATOR,
        kid=kid,
        jti_sha256=hashlib.sha256(b"jti-1").hexdigest(),
        exp=world.now_s + 540,
        binding=Binding.NONE,
        single_use=hashlib.sha256(iss.encode() + b"\0jti-1").hexdigest(),
    )


@pytest.mark.parametrize("agency_id", ["nasa", "loc", "nara"])
def test_each_agencies_own_issuer_is_accepted_on_its_own_topic(world: World, agency_id: str) -> None:
    """ES256 and EdDSA tokens verify with the key of their own issuer."""
    verified = world.with_record(agency_id=agency_id).verify(world.token(agency_id))

    assert agency_id == verified.agency_id


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", None])
def test_the_type_may_be_absent_or_a_tokens(world: World, typ: str | None) -> None:
    """`typ` is compared without case, and is optional."""
    assert world.verify(world.token(header={"typ": typ})).sub == "producer-1"


def test_the_scheme_is_compared_without_case(world: World) -> None:
    """`bearer` is `Bearer` (RFC 9110 §11.1)."""
    header = b"bearer " + world.token().encode()

    assert verify(header, world.record, world.registry, world.keys, world.now).agency_id == "nasa"


# Steps 1 to 3: form, header, kid.


@pytest.mark.parametrize("authorization", [b"", b"Basic dXNlcg==", b"Bearer", b"Bearer\t" + b"a.b.c"])
def test_without_a_bearer_token_nothing_is_asked(world: World, authorization: bytes) -> None:
    """A header without the Bearer scheme holds no token."""
    with pytest.raises(TokenRefused) as refused:
        verify(authorization, world.record, world.registry, world.keys, world.now)

    assert refused.value.reason is Code.TOKEN_MISSING


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: token + "=",
        lambda token: token + "==",
        lambda token: token + ".e30",
        lambda token: token.rsplit(".", 1)[0],
        lambda token: token.rsplit(".", 1)[0] + ".",
        lambda token: "." + token.split(".", 1)[1],
        lambda token: " " + token,
        lambda token: token + "\n",
        lambda token: token.replace(".", "..", 1),
        lambda token: token[:-1] + "+",
        lambda token: "A" * 8193,
        lambda token: token + "A" * 8192,
        lambda token: "",
        lambda token: "ü.ü.ü",
    ],
)
def test_what_is_not_three_base64url_parts_is_malformed(world: World, spoil: Any) -> None:
    """Padding, junk, missing or extra parts and more than 8 KiB are refused before anything is parsed."""
    assert world.code(spoil(world.token())) is Code.TOKEN_MALFORMED


def test_a_signature_has_one_spelling(world: World) -> None:
    """Other bits behind the last byte would make a second digest for one token."""
    token = world.token()
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = token[:-1] + last[(last.index(token[-1]) ^ 1)]

    assert world.code(other) is Code.TOKEN_MALFORMED


@pytest.mark.parametrize("name", ["crit", "b64", "jku", "jwk", "x5u", "x5c", "zip", "enc", "cty", "x5t#S256"])
def test_a_header_has_no_names_beside_alg_kid_and_typ(world: World, name: str) -> None:
    """No header parameter can bring a key, an address or an extension."""
    assert world.code(world.token(header={name: ["x"]})) is Code.TOKEN_HEADER_REFUSED


@pytest.mark.parametrize(
    "header",
    [
        "",
        "[]",
        "{",
        '{"alg":"ES256","alg":"ES256","kid":"k"}',
        '{"alg":"ES256","kid":"a","kid":"b"}',
        '\ufeff{"alg":"ES256","kid":"k"}',
        '{"alg":"ES256","kid":[[[[1]]]]}',
        '{"alg":["ES256"],"kid":"k"}',
        '{"kid":"k"}',
        '{"alg":"ES256","kid":NaN}',
    ],
)
def test_a_header_is_read_strictly(world: World, header: str) -> None:
    """Repeated names, a BOM, depth, and values of another type are refused (PyJWT takes the repeated names)."""
    expected = Code.TOKEN_HEADER_REFUSED if header else Code.TOKEN_MALFORMED

    assert world.code(world.raw(header)) is expected


def test_a_header_is_utf_8(world: World) -> None:
    """Latin-1 in a header is refused."""
    assert world.code(world.sign(b'{"alg":"ES256","kid":"\xfc"}', "{}")) is Code.TOKEN_HEADER_REFUSED


@pytest.mark.parametrize("typ", ["flux-proof+jwt", "dpop+jwt", "", 7, ["JWT"]])
def test_a_jws_of_another_type_is_no_token(world: World, typ: Any) -> None:
    """A proof presented as a token is refused by its type."""
    assert world.code(world.token(header={"typ": typ})) is Code.TOKEN_HEADER_REFUSED


def test_a_type_of_null_is_no_type(world: World) -> None:
    """`typ` is a text or absent."""
    header = json.dumps({**world.header(), "typ": None})

    assert world.code(world.raw(header)) is Code.TOKEN_HEADER_REFUSED


@pytest.mark.parametrize("kid", [None, "", "a" * 129, "../key", "a b", "kid\n", 7, {"a": 1}])
def test_a_kid_keeps_to_its_grammar(world: World, kid: Any) -> None:
    """`kid` is 1 to 128 of A-Z a-z 0-9 . _ ~ - and never missing."""
    assert world.code(world.token(header={"kid": kid})) is Code.TOKEN_HEADER_REFUSED


# Steps 4 to 7: issuer, key, algorithm, signature.


@pytest.mark.parametrize("iss", ["https://nasa.example/", "https://NASA.example", "https://other.example", "nasa"])
def test_an_issuer_is_an_exact_name(world: World, iss: str) -> None:
    """Another spelling of a registered issuer is another issuer."""
    assert world.code(world.token(iss=iss)) is Code.ISSUER_UNKNOWN


@pytest.mark.parametrize("payload", ["", "null", "[]", "{", '"iss"', '{"iss":"a","iss":"https://nasa.example"}'])
def test_a_payload_is_one_strict_object(world: World, payload: str) -> None:
    """What is no JSON object names no issuer."""
    assert world.code(world.raw(json.dumps(world.header()), payload)) is Code.CLAIM_INVALID


def test_an_unknown_kid_is_refused_and_names_the_issuer_to_refresh(world: World) -> None:
    """The refusal tells whose keys to look at again: the registered name, not the stranger's kid."""
    refused = world.refusal(world.token(header={"kid": "unknown"}))

    assert (refused.reason, refused.context) == (Code.KEY_UNKNOWN, {"iss": "https://nasa.example"})


def test_an_issuers_name_with_another_issuers_key_is_refused(world: World) -> None:
    """NASA's `iss` with the Library's `kid`: keys are looked up inside the issuer."""
    token = world.sign(
        json.dumps({"alg": "EdDSA", "kid": world.signers["loc"].kid}), json.dumps(world.payload("nasa")), "loc"
    )

    assert world.code(token) is Code.KEY_UNKNOWN


@pytest.mark.parametrize("alg", ["none", "None", "HS256", "RS256", "PS256", "EdDSA", "ES384", "es256", ""])
def test_the_algorithm_is_the_keys_own(world: World, alg: str) -> None:
    """A token cannot choose how its key is used."""
    assert world.code(world.token(header={"alg": alg})) is Code.ALGORITHM_REFUSED


def test_an_algorithm_that_the_issuer_may_not_use_is_refused(world: World) -> None:
    """The registry's list counts even where the key set has such a key."""
    issuers = dict(world.registry.issuers)
    issuers["https://nasa.example"] = replace(issuers["https://nasa.example"], algorithms=frozenset({"EdDSA"}))
    world.registry = replace(world.registry, issuers=MappingProxyType(issuers))

    assert world.code(world.token()) is Code.ALGORITHM_REFUSED


def test_an_hmac_made_with_the_public_key_is_refused(world: World) -> None:
    """The public key is no shared secret (the classic confusion of algorithms)."""
    secret = json.dumps(world.signers["nasa"].public_jwk()).encode()
    header, payload, _ = world.token(header={"alg": "HS256"}).split(".")
    mac = hmac.digest(secret, f"{header}.{payload}".encode(), "sha256")
    token = f"{header}.{payload}.{encode_base64url(mac)}"

    assert world.code(token) is Code.ALGORITHM_REFUSED


def test_a_signature_by_another_key_is_refused(world: World) -> None:
    """A stranger's key under NASA's kid does not verify."""
    stranger = generate_key("ES256")
    token = jwt.encode(
        world.payload(), stranger.private_key, algorithm="ES256", headers={"kid": world.signers["nasa"].kid}
    )

    assert world.code(token) is Code.SIGNATURE_INVALID


def test_a_signature_over_another_payload_is_refused(world: World) -> None:
    """One changed claim breaks the signature."""
    header, _, signature = world.token().split(".")
    payload = encode_base64url(json.dumps(world.payload(role="admin")).encode())

    assert world.code(f"{header}.{payload}.{signature}") is Code.SIGNATURE_INVALID


def test_keys_that_could_not_be_confirmed_for_a_day_verify_nothing(world: World) -> None:
    """Stale keys fail closed, also for a token that was verified before."""
    memory, token = VerifiedTokens(), world.token(exp=world.now_s + 3000)
    world.verify(token, memory)
    world.keys = world.keys.confirmed(world.now - timedelta(hours=24, seconds=1))

    assert world.code(token) is Code.KEYS_STALE
    with pytest.raises(TokenRefused) as remembered:
        world.verify(token, memory)
    assert remembered.value.reason is Code.KEYS_STALE


def test_keys_confirmed_a_day_ago_still_verify(world: World) -> None:
    """The limit itself is within."""
    world.keys = world.keys.confirmed(world.now - timedelta(hours=24))

    assert world.verify(world.token()).agency_id == "nasa"


def test_a_record_that_arrived_after_its_keys_retirement_is_refused(world: World) -> None:
    """Also where the token is remembered, and without an actor: what a retired key says proves nobody."""
    memory, token = VerifiedTokens(), world.token()
    world.verify(token, memory)
    retired = world.with_retired("nasa", world.now - timedelta(seconds=1))

    for kept in (memory, None):
        refusal = retired.refusal(token, kept)
        assert (refusal.reason, refusal.actor) == (Code.KEY_RETIRED, None)
    assert retired.with_record(appended_at=None).code(token) is Code.KEY_RETIRED


def test_a_record_that_arrived_before_still_verifies(world: World) -> None:
    """However late it is judged: a delay in the queue does not break a rotation. Other keys are not touched."""
    token, late = world.token(), replace(world, now=world.now + timedelta(hours=20))

    assert late.with_retired("nasa", world.now).verify(token).agency_id == "nasa"
    assert late.with_retired("loc", world.now - timedelta(days=1)).verify(token).agency_id == "nasa"


# Memory and step 13.


def test_a_remembered_token_is_still_matched_with_its_record(world: World) -> None:
    """Steps 9 to 12 run each time: a remembered token is refused on another agency's topic, late, or for a command."""
    memory, token = VerifiedTokens(), world.token()
    first = world.verify(token, memory)

    assert first == world.verify(token, memory)
    for changed, expected in [
        (world.with_record(agency_id="loc"), Code.AGENCY_MISMATCH),
        (world.with_record(appended_at=world.now + timedelta(hours=1)), Code.TOKEN_EXPIRED),
        (world.with_agency("nasa", binding_required=True), Code.BINDING_REQUIRED),
    ]:
        with pytest.raises(TokenRefused) as refused:
            changed.verify(token, memory)
        assert expected is refused.value.reason


def test_a_revoked_key_forgets_its_tokens(world: World) -> None:
    """Another generation of keys remembers nothing of the old one."""
    memory, token = VerifiedTokens(), world.token()
    world.verify(token, memory)
    sets = {**world.keys.sets, "https://nasa.example": replace(world.keys.sets["https://nasa.example"], keys={})}
    world.keys = replace(world.keys, sets=MappingProxyType(sets), generation="generation-2")

    with pytest.raises(TokenRefused) as refused:
        world.verify(token, memory)

    assert refused.value.reason is Code.KEY_UNKNOWN


def test_a_refused_token_is_not_remembered(world: World) -> None:
    """Memory holds what passed, so that junk cannot push good tokens out."""
    memory = VerifiedTokens()
    with pytest.raises(TokenRefused):
        world.verify(world.token(aud="other"), memory)

    assert len(memory) == 0


@pytest.mark.parametrize("error", [RecursionError, MemoryError, OverflowError, KeyError, UnicodeError])
def test_whatever_else_is_raised_refuses(world: World, error: type[Exception]) -> None:
    """Step 13: an error that nobody thought of is a refusal, which names its kind and place and not its message."""

    class Broken(dict[str, Any]):
        def get(self, *_: object) -> Any:
            raise error("secret")

    world.registry = replace(world.registry, issuers=Broken())
    refused = world.refusal(world.token())

    assert Code.TOKEN_MALFORMED is refused.reason
    assert refused.context["unexpected"].startswith(f"{error.__name__} at test_token.py:")
    assert "secret" not in repr(refused) + repr(refused.context)


def test_a_refusal_says_nothing_of_the_token(world: World) -> None:
    """The producer is told the code and its meaning alone."""
    refused = world.refusal(world.token(sub="very secret"))

    assert f"CLAIM_INVALID: {Code.CLAIM_INVALID.meaning}" == str(refused)
    assert refused.__cause__ is None
