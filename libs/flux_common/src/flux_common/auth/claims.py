"""What a token says, once: read from its payload bytes with one strict reader. Step 8 of docs/trust.md.

Times are whole seconds (PyJWT takes text, floats and booleans), agency and role are single texts of their grammar
(PyJWT takes lists), and every name is one that may stand in an audit fact. Source: RFC 7519 §4.1, RFC 7800 §3.1.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flux_common.auth.identity import Actor, Role
from flux_common.auth.refusal import NotPermitted, TokenRefused
from flux_common.auth.strict_json import StrictJsonError, parse_object
from flux_common.contracts.types import AGENCY_PATTERN
from flux_common.kernel.codes import Code

PAYLOAD_DEPTH_MAX: Final = 8
TIME_S_MAX: Final = 2**40

_AGENCY: Final = re.compile(AGENCY_PATTERN.removesuffix("$"))
_ROLE: Final = re.compile(r"[a-z][a-z-]{0,31}")
_NAME_OF_ISSUER: Final = re.compile(r"[\x21-\x7e]{1,512}")
_NAME: Final = re.compile(r"[\x21-\x7e]{1,256}")
_DIGEST: Final = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Claims:
    """The signed content of a token: an identity not yet matched with an agency, times in seconds, and its binding.

    `use_sha256` is SHA-256(iss ‖ 0 ‖ jti), the key of replay. `request_hash` and `jkt` are base64url digests or None.
    """

    actor: Actor
    audience: str
    iat: int
    nbf: int | None
    exp: int
    use_sha256: str
    request_hash: str | None
    jkt: str | None

    @property
    def not_before(self) -> int:
        """Return the first second at which the token counts: a token that was not yet issued is not valid either."""
        return self.iat if self.nbf is None else max(self.iat, self.nbf)


def read_payload(payload: bytes) -> dict[str, Any]:
    """Return the payload as a JSON object; raise `TokenRefused` where it is none."""
    try:
        return parse_object(payload, depth_max=PAYLOAD_DEPTH_MAX)
    except StrictJsonError:
        raise TokenRefused(Code.CLAIM_INVALID) from None


def issuer_named(payload: Mapping[str, Any]) -> str:
    """Return the issuer that an unverified payload names, to look its keys up and for nothing else."""
    return _text(payload, "iss", _NAME_OF_ISSUER)


def read_claims(payload: Mapping[str, Any], kid: str) -> Claims:
    """Return the claims of a payload whose signature has been verified; raise `TokenRefused` for any other form."""
    iss, jti = issuer_named(payload), _text(payload, "jti", _NAME)
    actor = Actor(
        agency_id=_text(payload, "agency", _AGENCY),
        iss=iss,
        sub=_text(payload, "sub", _NAME),
        role=_role(payload),
        kid=kid,
        jti_sha256=_sha256(jti),
    )
    claims = Claims(
        actor=actor,
        audience=_text(payload, "aud", _NAME),
        iat=_time(payload, "iat"),
        nbf=_time(payload, "nbf") if "nbf" in payload else None,
        exp=_time(payload, "exp"),
        use_sha256=_sha256(f"{iss}\0{jti}"),
        request_hash=_text(payload, "request_hash", _DIGEST) if "request_hash" in payload else None,
        jkt=_jkt(payload),
    )
    if claims.exp <= claims.not_before:
        raise TokenRefused(Code.CLAIM_INVALID)
    return claims


def _text(payload: Mapping[str, Any], name: str, grammar: re.Pattern[str]) -> str:
    value = payload.get(name)
    if not isinstance(value, str) or grammar.fullmatch(value) is None:
        raise TokenRefused(Code.CLAIM_INVALID)
    return value


def _time(payload: Mapping[str, Any], name: str) -> int:
    value = payload.get(name)
    if type(value) is not int or not 0 <= value <= TIME_S_MAX:  # a bool is an int to isinstance
        raise TokenRefused(Code.CLAIM_INVALID)
    return value


def _role(payload: Mapping[str, Any]) -> Role:
    text = _text(payload, "role", _ROLE)
    try:
        return Role(text)
    except ValueError:
        raise NotPermitted(Code.ROLE_FORBIDDEN) from None


def _jkt(payload: Mapping[str, Any]) -> str | None:
    """Return the thumbprint the token is confined to. A confirmation that Flux cannot check is no confirmation."""
    if "cnf" not in payload:
        return None
    confirmation = payload["cnf"]
    if not isinstance(confirmation, dict) or confirmation.keys() != {"jkt"}:
        raise TokenRefused(Code.CLAIM_INVALID)
    return _text(confirmation, "jkt", _DIGEST)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
