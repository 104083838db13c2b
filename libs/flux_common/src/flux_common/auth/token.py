"""The thirteen steps of docs/trust.md, in their order. Any failure is one refusal with one code.

What must hold: a `Verified` comes out only if the topic's agency, an issuer of that agency, a current key of that
issuer and the record itself all agree. The registry and the key ring are authoritative; the broker's LogAppendTime is
the clock, so that a token that was valid on arrival stays good however long Flux was down. Verification reads memory
only. Step 12, replay, is decided by ingest inside its transaction, on `Verified.single_use`.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from jwt import PyJWTError

from flux_common.auth.binding import check_binding
from flux_common.auth.claims import Claims, issuer_named, read_claims, read_payload
from flux_common.auth.compact import kid_of, read_compact
from flux_common.auth.identity import Binding, Verified
from flux_common.auth.jwk import VerificationKey
from flux_common.auth.keyset import KeyRing
from flux_common.auth.memory import VerifiedTokens
from flux_common.auth.record import RecordContext, bearer_token
from flux_common.auth.refusal import NotPermitted, TokenRefused
from flux_common.auth.registry import Agency, Issuer, Registry
from flux_common.auth.signature import verify_signature
from flux_common.kernel.codes import Code

LEEWAY_S: Final = 30
_HEADER: Final = frozenset({"alg", "kid", "typ"})
_TYPES: Final = frozenset({"jwt", "at+jwt"})  # a proof presented as a token stops here (RFC 8725 §3.11)

# Step 13. Named one by one, because a cancelled task or a stopping process is not a bad token.
_WHATEVER_ELSE: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    PyJWTError,
    UnsupportedAlgorithm,
)


@dataclass(frozen=True, slots=True)
class Signers:
    """Whose signature is looked for: the keys of one issuer by `kid`, and the algorithms that it may use."""

    iss: str
    keys: Mapping[str, VerificationKey]
    algorithms: Collection[str]


@dataclass(frozen=True, slots=True)
class _Named(Signers):
    payload: dict[str, Any]
    issuer: Issuer


S = TypeVar("S", bound=Signers)


def verify(
    authorization: bytes,
    record: RecordContext,
    registry: Registry,
    keys: KeyRing,
    now: datetime,
    memory: VerifiedTokens | None = None,
) -> Verified:
    """Return who sent `record`, proven by the value of its `authorization` header.

    Raises `TokenRefused` and nothing else; it carries the actor if the refusal came after step 9.
    """
    try:
        token = bearer_token(authorization)
        claims = _authenticate(token, registry, keys, now, memory)
        _check_retirement(claims, record, registry)
        agency = _match_agency(claims, record, registry)
        appended_s = _check_clock(claims, record, agency, now)
        binding, single_use = _bind(claims, token, record, agency, appended_s)
        return _verified(claims, binding, single_use)
    except TokenRefused:
        raise
    except _WHATEVER_ELSE as error:
        raise TokenRefused(Code.TOKEN_MALFORMED).with_context(unexpected=_where(error)) from None


def _authenticate(
    token: bytes, registry: Registry, keys: KeyRing, now: datetime, memory: VerifiedTokens | None
) -> Claims:
    """Steps 1 to 8, or the memory of them."""
    digest = hashlib.sha256(token).digest()
    remembered = memory.recall(digest, keys.generation, now.timestamp()) if memory is not None else None
    if remembered is not None:
        _key_set(keys, remembered.actor.iss, now)  # keys that have gone stale since verify nothing, remembered or not
        return remembered
    claims = _steps_1_to_8(token, registry, keys, now)
    if memory is not None:
        memory.remember(digest, claims)
    return claims


def _steps_1_to_8(token: bytes, registry: Registry, keys: KeyRing, now: datetime) -> Claims:
    named, kid = verify_signed(token, lambda payload: _named(payload, registry, keys, now))  # 1 to 7
    claims = read_claims(named.payload, kid)  # 8
    _check_audience_and_life(claims, named.issuer, registry)
    return claims


def verify_signed(token: bytes, signers_of: Callable[[bytes], S]) -> tuple[S, str]:
    """Steps 1 to 7: return the signers that `signers_of` finds for the payload, and the `kid` of the one who signed.

    All of them but step 4 say nothing of what is signed, so that hostile signatures over any payload come this way, too.
    """
    compact = read_compact(token, names=_HEADER, types=_TYPES)  # 1 and 2
    kid = kid_of(compact.header)  # 3
    signers = signers_of(compact.payload)  # 4
    key = _key(signers, kid)  # 5
    if compact.header["alg"] != key.algorithm or key.algorithm not in signers.algorithms:
        raise TokenRefused(Code.ALGORITHM_REFUSED)  # 6
    verify_signature(compact, key)  # 7
    return signers, kid


def _named(data: bytes, registry: Registry, keys: KeyRing, now: datetime) -> _Named:
    payload = read_payload(data)
    issuer = registry.issuer(issuer_named(payload))
    if issuer is None:
        raise TokenRefused(Code.ISSUER_UNKNOWN)
    return _Named(issuer.iss, _key_set(keys, issuer.iss, now), issuer.algorithms, payload, issuer)


def _key(signers: Signers, kid: str) -> VerificationKey:
    """Only this issuer's keys are looked at: another issuer's `kid` is unknown here."""
    key = signers.keys.get(kid)
    if key is None:
        # The context is the registered name, never the stranger's kid: it tells a refresher where to look.
        raise TokenRefused(Code.KEY_UNKNOWN).with_context(iss=signers.iss)
    return key


def _key_set(keys: KeyRing, iss: str, now: datetime) -> Mapping[str, VerificationKey]:
    key_set = keys.sets.get(iss)
    if key_set is None or key_set.is_stale(now):
        raise TokenRefused(Code.KEYS_STALE).with_context(iss=iss)
    return key_set.keys


def _check_audience_and_life(claims: Claims, issuer: Issuer, registry: Registry) -> None:
    if claims.audience != issuer.audience:
        raise TokenRefused(Code.AUDIENCE_MISMATCH)
    agency = registry.agency(claims.actor.agency_id)
    if agency is None:
        raise NotPermitted(Code.AGENCY_MISMATCH)
    life_s_max = agency.token_life_s_max.get(claims.actor.role)
    if life_s_max is None:
        raise NotPermitted(Code.ROLE_FORBIDDEN)
    if claims.exp - claims.iat > life_s_max:
        raise TokenRefused(Code.TOKEN_LIFE_TOO_LONG)


def _check_retirement(claims: Claims, record: RecordContext, registry: Registry) -> None:
    """The end of step 8, asked of each record: what arrived after its key's retirement proves nobody."""
    issuer = registry.issuer(claims.actor.iss)
    retired_at = issuer.retired_at.get(claims.actor.kid) if issuer is not None else None
    if retired_at is not None and (record.appended_at is None or record.appended_at > retired_at):
        raise TokenRefused(Code.KEY_RETIRED)


def _match_agency(claims: Claims, record: RecordContext, registry: Registry) -> Agency:
    """Step 9: the topic's agency, the claim's, the issuer's and the payload's are one."""
    agency = registry.agency(record.agency_id)
    if agency is None:
        raise NotPermitted(Code.AGENCY_NOT_FOUND)
    if claims.actor.agency_id != agency.agency_id or claims.actor.iss not in agency.issuers:
        raise NotPermitted(Code.AGENCY_MISMATCH)
    if record.payload_agency is not None and record.payload_agency != agency.agency_id:
        raise NotPermitted(Code.AGENCY_MISMATCH)
    return agency


def _check_clock(claims: Claims, record: RecordContext, agency: Agency, now: datetime) -> float:
    """Step 10: valid when the broker stamped the record; a command, and a request that may not age, also now."""
    if record.appended_at is None:
        raise TokenRefused(Code.TIMESTAMP_NOT_BROKERS, claims.actor)
    appended_s, now_s = record.appended_at.timestamp(), now.timestamp()
    if appended_s < claims.not_before - LEEWAY_S:
        raise TokenRefused(Code.TOKEN_NOT_YET_VALID, claims.actor)
    if appended_s >= claims.exp + LEEWAY_S:
        raise TokenRefused(Code.TOKEN_EXPIRED, claims.actor)
    too_old = agency.queue_age_max_s is not None and now_s - appended_s > agency.queue_age_max_s
    if too_old or (record.is_command and now_s >= claims.exp + LEEWAY_S):
        raise TokenRefused(Code.TOKEN_EXPIRED_IN_QUEUE, claims.actor)
    return appended_s


def _bind(
    claims: Claims, token: bytes, record: RecordContext, agency: Agency, appended_s: float
) -> tuple[Binding, str | None]:
    """Step 11, and what step 12 needs: the binding, and the digest that may be used once."""
    binding, use = check_binding(claims, token, record, appended_s, LEEWAY_S)
    if binding is not Binding.NONE:
        return binding, use
    if agency.binding_required:
        raise TokenRefused(Code.BINDING_REQUIRED, claims.actor)
    return binding, None if agency.reuse_unbound_tokens else use


def _verified(claims: Claims, binding: Binding, single_use: str | None) -> Verified:
    actor = claims.actor
    return Verified(
        agency_id=actor.agency_id,
        iss=actor.iss,
        sub=actor.sub,
        role=actor.role,
        kid=actor.kid,
        jti_sha256=actor.jti_sha256,
        exp=claims.exp,
        binding=binding,
        single_use=single_use,
    )


def _where(error: BaseException) -> str:
    """Return the kind of an error and the line it came from: its message could quote the token."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
