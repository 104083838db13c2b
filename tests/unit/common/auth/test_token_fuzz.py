"""Whatever bytes arrive: a refusal with a code, or a token that our own key signed; never another error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flux_common.auth import TokenRefused, verify
from flux_common.kernel.codes import Code

if TYPE_CHECKING:
    from conftest import World

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=40)
    | st.sampled_from(["nasa", "loc", "operator", "https://nasa.example", "flux", "ES256", "none", "A" * 43])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
HEADER_NAMES = st.sampled_from(["alg", "kid", "typ", "crit", "jwk", "b64", "zip", "x5c"])
CLAIM_NAMES = st.sampled_from(
    ["iss", "sub", "aud", "iat", "nbf", "exp", "jti", "agency", "role", "request_hash", "cnf", "scope"]
)


def outcome(world: World, authorization: bytes) -> Code | None:
    """Return the code of the refusal, or None if the token was accepted; anything else that is raised fails the test.

    A refusal under step 13 (`unexpected`) is a case that a step of its own should have met.
    """
    met: TokenRefused | None = None
    try:
        verify(authorization, world.record, world.registry, world.keys, world.now)
    except TokenRefused as refused:
        met = refused

    assert met is None or "unexpected" not in met.context
    return None if met is None else met.reason


@FUZZ
@given(authorization=st.binary(max_size=200) | st.binary(max_size=200).map(lambda junk: b"Bearer " + junk))
def test_any_bytes_are_refused(world: World, authorization: bytes) -> None:
    """No bytes are a token by chance."""
    assert outcome(world, authorization) is not None


@FUZZ
@given(
    parts=st.lists(st.text("ABCxyz019-_=.+/ ", max_size=30), min_size=1, max_size=5),
)
def test_anything_that_looks_like_parts_is_refused(world: World, parts: list[str]) -> None:
    """Base64url-like text in any number of parts."""
    assert outcome(world, b"Bearer " + ".".join(parts).encode()) is not None


@FUZZ
@given(
    header=st.dictionaries(HEADER_NAMES, VALUES, max_size=4), payload=st.binary(max_size=60) | VALUES.map(json.dumps)
)
def test_any_signed_header_and_payload_are_judged(world: World, header: dict[str, Any], payload: Any) -> None:
    """Even under our own signature, junk is junk."""
    token = world.sign(json.dumps({**world.header(), **header}), payload)

    assert outcome(world, b"Bearer " + token.encode()) is not None


@FUZZ
@given(claims=st.dictionaries(CLAIM_NAMES, VALUES, min_size=1, max_size=4))
def test_any_signed_claims_are_judged(world: World, claims: dict[str, Any]) -> None:
    """An issuer with a broken mint gets refusals; what is accepted has the agency, the role and the times right."""
    payload = {**world.payload(), **claims}
    token = world.sign(json.dumps(world.header()), json.dumps(payload))
    if outcome(world, b"Bearer " + token.encode()) is not None:
        return

    assert (payload["agency"], payload["aud"], payload["iss"]) == ("nasa", "flux", "https://nasa.example")
    assert type(payload["exp"]) is int
    assert payload["role"] in {"admin", "operator", "viewer"}


@FUZZ
@given(position=st.integers(0, 10_000), replacement=st.integers(0, 255))
def test_no_changed_byte_is_accepted(world: World, position: int, replacement: int) -> None:
    """Every byte of a token is under its signature or is its signature."""
    good = world.token().encode()
    index = position % len(good)
    changed = good[:index] + bytes([replacement]) + good[index + 1 :]

    assert (outcome(world, b"Bearer " + changed) is None) is (changed == good)


@FUZZ
@given(proof=st.binary(min_size=1, max_size=200) | st.text("ABCxyz019-_.", min_size=1, max_size=120).map(str.encode))
def test_any_proof_bytes_are_refused(world: World, proof: bytes) -> None:
    """Junk in `flux-proof` proves nothing."""
    confined = world.with_record(proof=proof)

    assert outcome(confined, b"Bearer " + world.token(cnf={"jkt": "A" * 43}).encode()) is Code.BINDING_MISMATCH
