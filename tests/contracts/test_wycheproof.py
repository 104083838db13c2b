"""Project Wycheproof's hostile JSON Web Signatures, run through the very function that `verify` has for steps 1 to 7.

The cases' payloads are no claims, so step 4 is answered here: the signer is an issuer whose key set holds the case's key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from flux_common.auth import ConfigurationRefused, TokenRefused
from flux_common.auth import token as token_module
from flux_common.auth.jwk import ALGORITHMS
from flux_common.auth.keyset import read_jwks
from flux_common.auth.token import Signers, verify_signed
from flux_devkit import home

CASES = home.corpora() / "jws/json_web_signature_test.json"
ACCEPTED = {18, 33, 259, 260, 261, 262, 263, 272, 273, 274, 275, 287, 288, 378}

# Marked valid, and refused by any verifier that keeps a key to its one algorithm: signed with PS384 under a PS256 key.
OTHER_ALGORITHM_THAN_THE_KEYS = {346, 350}
# Marked valid; the kid, `bilbo.baggins@hobbiton.example`, has a character that Flux's key ids do not have.
KID_BEYOND_THE_GRAMMAR = {345, 349}
EXPECTED_REFUSALS = OTHER_ALGORITHM_THAN_THE_KEYS | KID_BEYOND_THE_GRAMMAR

pytestmark = pytest.mark.skipif(
    not CASES.is_file(), reason=f"no corpus: {CASES} is absent (FLUX_CORPORA names its folder)"
)


def groups() -> Iterator[dict[str, Any]]:
    """Return the corpus' groups of cases; a group without a public key has a symmetric one."""
    yield from json.loads(CASES.read_text())["testGroups"] if CASES.is_file() else ()


def accepts(jwk: dict[str, Any], token: Any) -> bool:
    """Return whether a key set of this one key verifies the token."""
    try:
        keys = read_jwks(json.dumps({"keys": [jwk]}).encode(), "jwks")
        text = token if isinstance(token, str) else json.dumps(token)
        verify_signed(text.encode(), lambda _payload: Signers("corpus", keys, ALGORITHMS))
    except (ConfigurationRefused, TokenRefused):
        return False
    return True


def accepted() -> set[int]:
    """Return the cases that are accepted."""
    return {
        case["tcId"]
        for group in groups()
        for case in group["tests"]
        if accepts(group.get("public") or group["private"], case["jws"])
    }


def is_ours(jwk: dict[str, Any]) -> bool:
    """Return whether the key's algorithm is one that Flux verifies; the corpus has RS384 and the like, too."""
    return jwk.get("alg") in ALGORITHMS


@pytest.mark.parametrize("result", ["valid", "invalid"])
def test_each_case_has_the_verdict_that_it_should(result: str) -> None:
    """Every invalid case is refused; every valid one with an algorithm of ours is accepted, but those named above."""
    wrong, count = [], 0
    for group in groups():
        jwk = group.get("public") or group["private"]
        for case in group["tests"]:
            if case["result"] != result:
                continue
            count += 1
            expected = result == "valid" and is_ours(jwk) and case["tcId"] not in EXPECTED_REFUSALS
            if accepts(jwk, case["jws"]) is not expected:
                wrong.append((case["tcId"], case["comment"]))

    assert ([], {"valid": 46, "invalid": 355}[result]) == (wrong, count)


def test_the_accepted_cases_are_these() -> None:
    """Named one by one, so that a verifier that refuses everything cannot pass."""
    assert accepted() == ACCEPTED


def test_a_verifier_that_looks_at_no_signature_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault that all of this is for, planted: cases get through that must not."""
    monkeypatch.setattr(token_module, "verify_signature", lambda _compact, _key: None)

    assert accepted() > ACCEPTED


def test_a_private_key_is_refused_even_where_its_signature_is_good() -> None:
    """The corpus holds the private halves: none of them is taken into a key set."""
    assert not any(accepts(group["private"], case["jws"]) for group in groups() for case in group["tests"])
