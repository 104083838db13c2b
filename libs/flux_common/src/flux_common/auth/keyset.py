"""The issuers' public keys, in memory, all or nothing.

Verification reads memory only and never fetches. A set with one bad member is refused whole: a file that is half right
is a file nobody has checked. A key belongs to one algorithm, and stands once in a set. Keys that could not be confirmed
for longer than they may verify nothing (fail closed); each issuer's set has its own time, for one identity provider
that is down says nothing of another.

A key under two issuers is a mistake or a copy. In files, which operators write, it is refused; of sets that issuers
publish both are taken and the key is told of (`KeyRing.shared`), for a refusal would hit the one who is copied. See
docs/decisions/0014.
The generation changes with any byte of the registry or of a key set, so that what was remembered under a revoked key is
forgotten. Source: docs/trust.md, RFC 7517.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from flux_common.auth.compact import is_kid
from flux_common.auth.faults import ConfigurationRefused, Fault
from flux_common.auth.jwk import KeyRefused, VerificationKey, read_key
from flux_common.auth.registry import Registry
from flux_common.auth.strict_json import StrictJsonError, parse_object

KEYS_FRESH_S: Final = 24 * 3600
JWKS_BYTES_MAX: Final = 256 * 1024
JWKS_KEYS_MAX: Final = 64
GOOD_MEMBER: Final = "publish public keys of RS256, PS256, ES256 or EdDSA alone, each with its kid and alg"
_DEPTH_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class KeySet:
    """One issuer's keys by `kid`, and when they were last confirmed to be what the issuer publishes."""

    keys: Mapping[str, VerificationKey]
    confirmed_at: datetime
    sha256: str = ""  # of the bytes that were read
    fresh_s: int = KEYS_FRESH_S

    def is_stale(self, now: datetime) -> bool:
        """Return whether the keys are older than they may be."""
        return (now - self.confirmed_at).total_seconds() > self.fresh_s


@dataclass(frozen=True, slots=True)
class SharedKey:
    """A public key that two issuers have; `kid` is what `issuer` calls it. Nobody can tell from the sets whose it is."""

    issuer: str
    kid: str
    other: str

    def fault(self) -> Fault:
        """Return what an operator is told."""
        said = f'"{self.kid}" is also a key of the issuer "{self.other}"'
        return Fault(f'issuers["{self.issuer}"].keys', said, "whose key is it? the other one publishes its own")


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Every issuer's key set, swapped as one value; `generation` names its contents, `shared` the keys of two issuers."""

    sets: Mapping[str, KeySet]
    generation: str
    shared: tuple[SharedKey, ...] = ()

    def of(self, iss: str) -> KeySet:
        """Return the key set of an issuer; raises KeyError for one whose keys were never had."""
        return self.sets[iss]

    def confirmed(self, at: datetime, issuers: Collection[str] | None = None) -> KeyRing:
        """Return the same keys, those of `issuers` (None: all) confirmed at `at`."""
        sets = {
            iss: replace(keys, confirmed_at=at) if issuers is None or iss in issuers else keys
            for iss, keys in self.sets.items()
        }
        return replace(self, sets=MappingProxyType(sets))


def load_keys(registry: Registry, now: datetime, fresh_s: int = KEYS_FRESH_S) -> KeyRing:
    """Return the keys of every issuer of `registry` whose set is a file, read at `now`.

    Raises `ConfigurationRefused` with every fault of every set.
    """
    faults: list[Fault] = []
    sets: dict[str, KeySet] = {}
    for iss, path in sorted(key_files(registry).items()):
        try:
            sets[iss] = read_set(iss, _read_file(path), now, fresh_s)
        except ConfigurationRefused as refused:
            faults.extend(refused.faults)
    ring = ring_of(registry, sets)
    faults.extend(one.fault() for one in ring.shared)
    if faults:
        raise ConfigurationRefused(faults)
    return ring


def key_files(registry: Registry) -> dict[str, Path]:
    """Return the issuers whose key set is a file, with its path."""
    return {iss: issuer.jwks for iss, issuer in registry.issuers.items() if isinstance(issuer.jwks, Path)}


def read_set(iss: str, data: bytes, at: datetime, fresh_s: int = KEYS_FRESH_S) -> KeySet:
    """Return the key set that `data` is, confirmed at `at`; raise `ConfigurationRefused` with its faults."""
    keys = MappingProxyType(read_jwks(data, f'issuers["{iss}"]'))
    return KeySet(keys, at, hashlib.sha256(data).hexdigest(), fresh_s)


def ring_of(registry: Registry, sets: Mapping[str, KeySet]) -> KeyRing:
    """Return `sets` as one value, with the generation that they and the registry make."""
    named = [f"{iss} {sets[iss].sha256}" for iss in sorted(sets)]
    generation = hashlib.sha256("\n".join([registry.digest, *named]).encode()).hexdigest()
    return KeyRing(MappingProxyType(dict(sets)), generation, tuple(_shared(sets)))


def read_jwks(data: bytes, where: str) -> dict[str, VerificationKey]:
    """Return the keys of a JWKS by `kid`; raise `ConfigurationRefused` with every fault, each path led by `where`."""
    members = _members(data, where)
    faults: list[Fault] = []
    keys: dict[str, VerificationKey] = {}
    seen: set[str] = set()
    for index, member in enumerate(members):
        try:
            kid, key = _read_member(member)
            if kid in keys or key.thumbprint in seen:
                raise KeyRefused("the kid is repeated" if kid in keys else "the same key stands here twice")
            keys[kid] = key
            seen.add(key.thumbprint)
        except KeyRefused as refused:
            faults.append(Fault(f"{where}.keys[{index}]", str(refused), GOOD_MEMBER))
    if faults:
        raise ConfigurationRefused(faults)
    return keys


def _read_member(member: Any) -> tuple[str, VerificationKey]:
    if not isinstance(member, dict):
        raise KeyRefused("not an object")
    if not is_kid(member.get("kid")):
        raise KeyRefused("kid is missing or not 1 to 128 of A-Z a-z 0-9 . _ ~ -")
    return member["kid"], read_key(member, member.get("alg"))


def _members(data: bytes, where: str) -> list[Any]:
    try:
        document = parse_object(data, depth_max=_DEPTH_MAX)
    except StrictJsonError as error:
        raise ConfigurationRefused([Fault(where, str(error), "publish a JWKS: one JSON object with keys")]) from None
    members = document.get("keys")
    if not isinstance(members, list) or not 0 < len(members) <= JWKS_KEYS_MAX:
        raise ConfigurationRefused([Fault(f"{where}.keys", f"not a list of 1 to {JWKS_KEYS_MAX} keys", GOOD_MEMBER)])
    return members


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(JWKS_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationRefused(
            [Fault(str(path), f"cannot be read ({error.strerror})", "let this user read it")]
        ) from None
    if len(data) > JWKS_BYTES_MAX:
        raise ConfigurationRefused([Fault(str(path), f"larger than {JWKS_BYTES_MAX} bytes", GOOD_MEMBER)])
    return data


def _shared(sets: Mapping[str, KeySet]) -> Iterator[SharedKey]:
    """Yield each key of an issuer that one before it in the alphabet has, too: in whatever order the sets arrived."""
    seen: dict[str, str] = {}
    for iss in sorted(sets):
        for kid, key in sets[iss].keys.items():
            other = seen.setdefault(key.thumbprint, iss)
            if other != iss:
                yield SharedKey(iss, kid, other)
