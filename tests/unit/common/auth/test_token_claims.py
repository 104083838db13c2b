"""Steps 8 to 12 of token verification: claims, agency, clock, and what binding and replay are decided on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from flux_common.auth import Actor, Binding, NotPermitted, Role
from flux_common.auth.compact import encode_base64url
from flux_common.auth.token import LEEWAY_S
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Classification

if TYPE_CHECKING:
    from conftest import World


# Step 8: claims.


@pytest.mark.parametrize("name", ["iss", "sub", "aud", "exp", "iat", "jti", "agency", "role"])
def test_no_required_claim_may_be_missing_or_null(world: World, name: str) -> None:
    """Every required claim is there, and null is not there."""
    null = world.raw(json.dumps(world.header()), json.dumps({**world.payload(), name: None}))

    assert world.code(world.token(**{name: None})) is Code.CLAIM_INVALID
    assert world.code(null) is Code.CLAIM_INVALID


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": "1772366400"},
        {"exp": 1772366400.5},
        {"exp": 1772366400.0},
        {"exp": True},
        {"exp": -1},
        {"exp": 2**41},
        {"exp": [1772366400]},
        {"iat": "1772366000"},
        {"iat": False},
        {"iat": 1.5},
        {"nbf": "0"},
        {"nbf": 0.5},
        {"nbf": 2**62},
        {"agency": ["nasa"]},
        {"agency": {"id": "nasa"}},
        {"agency": "NASA"},
        {"agency": "nasa\n"},
        {"agency": "n"},
        {"agency": "_system"},
        {"agency": "na.sa"},
        {"role": ["operator"]},
        {"role": "Operator"},
        {"role": "operator admin"},
        {"sub": 7},
        {"sub": ""},
        {"sub": "a" * 257},
        {"sub": "free text"},
        {"sub": "line\nbreak"},
        {"sub": "ünï"},
        {"jti": 7},
        {"jti": ""},
        {"jti": "a" * 257},
        {"iss": ["https://nasa.example"]},
        {"aud": ["flux"]},
        {"aud": 7},
        {"request_hash": "short"},
        {"request_hash": 7},
        {"cnf": "jkt"},
        {"cnf": {}},
        {"cnf": {"jkt": "short"}},
        {"cnf": {"jkt": "A" * 43, "x5t#S256": "A" * 43}},
        {"exp": 1772300000},
    ],
)
def test_a_claim_is_of_its_type_and_grammar(world: World, claims: dict[str, Any]) -> None:
    """Times are whole seconds, names single texts, and a confirmation one that Flux can check (PyJWT is laxer)."""
    assert world.code(world.token(**claims)) is Code.CLAIM_INVALID


@pytest.mark.parametrize("name", ["request_hash", "cnf", "nbf"])
def test_an_optional_claim_of_null_is_refused(world: World, name: str) -> None:
    """An optional claim is absent or of its type: null would otherwise unbind a token."""
    token = world.raw(json.dumps(world.header()), json.dumps({**world.payload(), name: None}))

    assert world.code(token) is Code.CLAIM_INVALID


def test_repeated_names_in_the_payload_are_refused(world: World) -> None:
    """PyJWT would take the last `agency`; another reader would take the first."""
    payload = json.dumps(world.payload())[:-1] + ',"agency":"loc"}'

    assert world.code(world.raw(json.dumps(world.header()), payload)) is Code.CLAIM_INVALID


def test_other_claims_are_ignored(world: World) -> None:
    """An issuer may say more than Flux asks for."""
    assert world.verify(world.token(scope="a b", groups=["x"])).sub == "producer-1"


@pytest.mark.parametrize("aud", ["flux2", "Flux", "other"])
def test_the_audience_is_exact(world: World, aud: str) -> None:
    """A token for somebody else is refused."""
    assert world.code(world.token(aud=aud)) is Code.AUDIENCE_MISMATCH


@pytest.mark.parametrize(("role", "life_s"), [("operator", 3600), ("admin", 900), ("viewer", 3600)])
def test_a_token_lives_no_longer_than_its_role_may(world: World, role: str, life_s: int) -> None:
    """The limit itself is allowed, a second more is not."""
    iat = world.now_s - 10

    assert world.verify(world.token(role=role, iat=iat, exp=iat + life_s)).role == role
    assert world.code(world.token(role=role, iat=iat, exp=iat + life_s + 1)) is Code.TOKEN_LIFE_TOO_LONG


def test_an_unknown_role_is_forbidden(world: World) -> None:
    """Default deny: no role that the table does not name."""
    refused = world.refusal(world.token(role="root"))

    assert (refused.reason, refused.classification) == (Code.ROLE_FORBIDDEN, Classification.AUTHORIZATION)


def test_a_role_that_the_agency_does_not_list_is_forbidden(world: World) -> None:
    """An agency without admins has no admin tokens."""
    limited = world.with_agency("nasa", token_life_s_max=MappingProxyType({Role.OPERATOR: 3600}))

    assert limited.code(world.token(role="admin", exp=world.now_s + 60)) is Code.ROLE_FORBIDDEN


# Step 9: one agency.


def test_an_issuer_cannot_speak_for_another_agency(world: World) -> None:
    """NASA's key signing a claim for the Library is refused on either topic."""
    token = world.token("nasa", agency="loc")

    assert world.code(token) is Code.AGENCY_MISMATCH
    assert world.with_record(agency_id="loc").code(token) is Code.AGENCY_MISMATCH


def test_a_token_counts_on_its_own_agencys_topic_only(world: World) -> None:
    """A genuine token of the Library proves nothing on NASA's topic."""
    refused = world.refusal(world.token("loc"))

    assert (refused.reason, refused.actor) == (Code.AGENCY_MISMATCH, None)
    assert isinstance(refused, NotPermitted)


def test_a_payload_cannot_name_another_agency(world: World) -> None:
    """The value's agency equals the claim's, or is absent."""
    assert world.with_record(payload_agency="loc").code(world.token()) is Code.AGENCY_MISMATCH
    assert world.with_record(payload_agency="nasa").verify(world.token()).agency_id == "nasa"


def test_an_unregistered_claim_is_a_mismatch_and_an_unregistered_topic_is_not_found(world: World) -> None:
    """Neither gives an identity."""
    assert world.code(world.token(agency="esa")) is Code.AGENCY_MISMATCH
    assert world.with_record(agency_id="esa").code(world.token()) is Code.AGENCY_NOT_FOUND


def test_an_issuer_of_two_agencies_speaks_for_both(world: World) -> None:
    """An issuer belongs to the agencies that list it."""
    both = frozenset({"https://nasa.example", "https://loc.example"})
    shared = world.with_agency("loc", issuers=both).with_record(agency_id="loc")

    assert shared.verify(world.token("nasa", agency="loc")).agency_id == "loc"


# Step 10: the clock.


def test_a_record_without_log_append_time_is_refused(world: World) -> None:
    """A producer's own time proves no arrival."""
    assert world.with_record(appended_at=None).code(world.token()) is Code.TIMESTAMP_NOT_BROKERS


def test_arrival_decides_and_not_the_time_of_judging(world: World) -> None:
    """A request that arrived in time is accepted a week later."""
    late = replace(world, now=world.now + timedelta(days=7), keys=world.keys.confirmed(world.now + timedelta(days=7)))

    assert late.verify(world.token()).agency_id == "nasa"


@pytest.mark.parametrize(("seconds", "expected"), [(-0.001, None), (0, Code.TOKEN_EXPIRED), (60, Code.TOKEN_EXPIRED)])
def test_a_token_ends_at_exp_plus_leeway(world: World, seconds: float, expected: Code | None) -> None:
    """`t_append < exp + leeway`, to the millisecond."""
    token = world.token(exp=world.now_s + 100)
    moved = world.with_record(appended_at=world.now + timedelta(seconds=100 + LEEWAY_S + seconds))

    assert expected is (None if expected is None else moved.code(token))
    if expected is None:
        assert moved.verify(token).exp == world.now_s + 100


@pytest.mark.parametrize("claim", ["iat", "nbf"])
def test_a_token_begins_at_the_later_of_nbf_and_iat_less_leeway(world: World, claim: str) -> None:
    """`nbf − leeway ≤ t_append`; a token issued in the future is not valid either, or its life would be no limit."""
    begins = world.now_s + LEEWAY_S

    assert world.verify(world.token(**{claim: begins})).agency_id == "nasa"
    assert world.code(world.token(**{claim: begins + 1})) is Code.TOKEN_NOT_YET_VALID


def test_a_command_must_also_be_in_time_when_it_is_judged(world: World) -> None:
    """Nobody wants yesterday's cancel."""
    token = world.token(exp=world.now_s + 100)
    end = world.now + timedelta(seconds=100 + LEEWAY_S)
    command = world.with_record(is_command=True)

    assert replace(command, now=end - timedelta(milliseconds=1)).verify(token).agency_id == "nasa"
    assert replace(command, now=end).code(token) is Code.TOKEN_EXPIRED_IN_QUEUE


def test_an_agency_can_limit_the_age_of_its_requests(world: World) -> None:
    """`queue_age_max_s` says of requests what `exp` says of commands."""
    limited = replace(world.with_agency("nasa", queue_age_max_s=60), now=world.now + timedelta(seconds=61))

    assert limited.code(world.token()) is Code.TOKEN_EXPIRED_IN_QUEUE
    assert replace(limited, now=world.now + timedelta(seconds=60)).verify(world.token()).agency_id == "nasa"


def test_a_refusal_after_step_nine_names_the_proven_actor(world: World) -> None:
    """The fact of such a refusal belongs to the agency's own log."""
    token = world.token(iat=world.now_s - 200, exp=world.now_s - 100)

    assert world.refusal(token).actor == Actor(
        "nasa",
        "https://nasa.example",
        "producer-1",
        Role.OPERATOR,
        world.signers["nasa"].kid,
        hashlib.sha256(b"jti-1").hexdigest(),
    )


# Steps 11 and 12: binding, and what replay is decided on (the proof itself: test_binding).


def test_a_claim_binds_the_token_to_the_value(world: World) -> None:
    """`request_hash` is the SHA-256 of the exact record value; the token's own id is single use."""
    digest = encode_base64url(hashlib.sha256(world.value).digest())
    verified = world.with_agency("nasa", binding_required=True).verify(world.token(request_hash=digest))

    assert Binding.CLAIM is verified.binding
    assert hashlib.sha256(b"https://nasa.example\0jti-1").hexdigest() == verified.single_use


def test_a_claim_for_another_value_is_refused(world: World) -> None:
    """One other byte in the value, and the token is not for it."""
    digest = encode_base64url(hashlib.sha256(world.value + b" ").digest())

    assert world.code(world.token(request_hash=digest)) is Code.BINDING_MISMATCH


def test_an_agency_can_require_binding(world: World) -> None:
    """An unbound token is refused where the agency wants bound ones."""
    assert world.with_agency("nasa", binding_required=True).code(world.token()) is Code.BINDING_REQUIRED


def test_only_unbound_tokens_of_an_agency_that_says_so_may_be_used_again(world: World) -> None:
    """`reuse_unbound_tokens` frees unbound tokens alone; a bound one stays single use."""
    free = world.with_agency("nasa", reuse_unbound_tokens=True)
    digest = encode_base64url(hashlib.sha256(world.value).digest())

    assert free.verify(world.token()).single_use is None
    assert free.verify(world.token(request_hash=digest)).single_use is not None
