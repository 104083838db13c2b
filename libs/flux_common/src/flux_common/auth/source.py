"""The registry and its keys, kept current while the process runs.

Registry and keys are one value, `Trust`, replaced in one assignment. The files are looked at, and read only if one of
them changed. A registry or a key set with a fault changes nothing: the old value stays, its keys are no longer
confirmed, and after a day they verify nothing. An agency that vanishes from the file is a fault, because agencies are
suspended and never removed: its runs go on. The caller decides how often to refresh and reports what comes back.

What an issuer publishes at a URL is brought by whoever fetches (`publish`), and is taken whole or not at all:

| what is brought | then |
|---|---|
| the bytes that are known | the set is confirmed as of when they were asked for |
| a good set | it takes the old one's place: another generation, so what was remembered is forgotten |
| a good set with a key that another issuer has | the same, and the key is among the ring's `shared` ones |
| a set with a fault | nothing changes, and nothing is confirmed |
| of an issuer that is gone, or now publishes elsewhere | nothing changes |
| while the registry has a fault | the same, but confirmed as of the last look that found none: all keys go stale in the end |

A reload keeps what was fetched of issuers whose URL is the same. What one issuer publishes never decides whether
another's set is taken: whoever copies a key would lock its owner out, by coming first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from flux_common.auth.faults import ConfigurationRefused, Fault
from flux_common.auth.key_url import KeyUrl
from flux_common.auth.keyset import (
    KEYS_FRESH_S,
    KeyRing,
    key_files,
    load_keys,
    read_set,
    ring_of,
)
from flux_common.auth.registry import Registry
from flux_common.auth.registry_file import load_registry

_Stamps = dict[Path, tuple[int, int, int, int] | None]


@dataclass(frozen=True, slots=True)
class Trust:
    """Who is known, and by which keys."""

    registry: Registry
    keys: KeyRing


class Refresh(StrEnum):
    """What a refresh did."""

    UNCHANGED = "unchanged"
    RELOADED = "reloaded"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the files found: neither, if nothing changed."""

    loaded: tuple[Trust, _Stamps] | None = None
    faults: tuple[Fault, ...] = ()


def load_trust(path: Path, now: datetime) -> Trust:
    """Return the registry at `path` with the keys of its issuers; raise `ConfigurationRefused` with every fault."""
    return _load(path, now, KEYS_FRESH_S)[0]


class RegistrySource:
    """The registry at `path`, read at once and again whenever it or a key set changes.

    The constructor raises `ConfigurationRefused`: without a first good registry nothing starts. `faults` holds what is
    wrong with the file at present, and is empty when `trust` is what the file says. `fresh_s` is how long keys verify
    that nothing confirms.
    """

    def __init__(self, path: Path, now: datetime, fresh_s: int = KEYS_FRESH_S) -> None:
        self._path = path
        self._fresh_s = fresh_s
        self.trust, self._stamps = _load(path, now, fresh_s)
        self.faults: tuple[Fault, ...] = ()
        self._sound_at = now  # the last look at the files that found no fault

    def refresh(self, now: datetime) -> Refresh:
        """Look at the files, and read them again if any changed; never raises for what stands in them."""
        return self.take(self.look(now), now)

    def look(self, now: datetime) -> Look:
        """Read the files if any changed. Changes nothing, so that a thread may do it: a large registry takes seconds."""
        if _stamps([self._path, *key_files(self.trust.registry).values()]) == self._stamps:
            return Look()
        try:
            return Look(_load(self._path, now, self._fresh_s))
        except ConfigurationRefused as refused:
            return Look(faults=refused.faults)

    def take(self, look: Look, now: datetime) -> Refresh:
        """Make what was seen at `now` the truth, with what was published meanwhile; on the loop that `publish` runs on."""
        if look.faults or (look.loaded and (gone := _gone(self.trust.registry, look.loaded[0].registry))):
            self.faults = look.faults or gone
            return Refresh.REFUSED
        self.faults, self._sound_at = (), now
        if look.loaded is None:
            files = key_files(self.trust.registry)
            self.trust = replace(self.trust, keys=self.trust.keys.confirmed(now, files.keys()))
            return Refresh.UNCHANGED
        trust, self._stamps = look.loaded
        self.trust = _carried(self.trust, trust)
        return Refresh.RELOADED

    def publish(self, iss: str, url: KeyUrl, data: bytes, asked_at: datetime) -> bool:
        """Take the key set that was found at `url`, asked for at `asked_at`; return whether it is another one now.

        Raises `ConfigurationRefused` with every fault of the set, and changes nothing then.
        """
        registry, keys = self.trust.registry, self.trust.keys
        if url_of(registry, iss) != url:
            return False
        at = self._sound_at if self.faults else asked_at
        old = keys.sets.get(iss)
        if old is not None and old.sha256 == hashlib.sha256(data).hexdigest():
            self.trust = replace(self.trust, keys=keys.confirmed(at, {iss}))
            return False
        sets = {**keys.sets, iss: read_set(iss, data, at, self._fresh_s)}
        self.trust = Trust(registry, ring_of(registry, sets))
        return True


def url_of(registry: Registry, iss: str) -> KeyUrl | None:
    """Return where an issuer publishes its keys; None for one whose keys are a file, and for one that is not known."""
    issuer = registry.issuer(iss)
    return issuer.jwks if issuer is not None and isinstance(issuer.jwks, KeyUrl) else None


def _load(path: Path, now: datetime, fresh_s: int) -> tuple[Trust, _Stamps]:
    """Read everything; each file is stamped before it is read, so that a change meanwhile is seen the next time."""
    stamps = _stamps([path])
    registry = load_registry(path)
    stamps |= _stamps(key_files(registry).values())
    return Trust(registry, load_keys(registry, now, fresh_s)), stamps


def _carried(old: Trust, new: Trust) -> Trust:
    """Return `new` with what was fetched of issuers that publish where they did."""
    sets = dict(new.keys.sets)
    for iss, fetched in old.keys.sets.items():
        url = url_of(old.registry, iss)
        if url is not None and url == url_of(new.registry, iss):
            sets[iss] = fetched
    return replace(new, keys=ring_of(new.registry, sets))


def _gone(old: Registry, new: Registry) -> tuple[Fault, ...]:
    return tuple(
        Fault("agencies", f'"{agency_id}" is gone; an agency is never removed, set suspended: true', "put it back")
        for agency_id in sorted(old.agencies.keys() - new.agencies.keys())
    )


def _stamps(paths: Iterable[Path]) -> _Stamps:
    return {path: _stamp(path) for path in paths}


def _stamp(path: Path) -> tuple[int, int, int, int] | None:
    """Times, size and inode: a mounted ConfigMap is exchanged by a symbolic link, which changes the inode."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
