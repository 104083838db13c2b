"""The registry and its keys, kept current while the process runs.

Registry and keys are one value, `Trust`, replaced in one assignment. The files are looked at, and read only if one of
them changed. A registry or a key set with a fault changes nothing: the old value stays, its keys are no longer
confirmed, and after a day they verify nothing. An agency that vanishes from the file is a fault, because agencies are
suspended and never removed: its runs go on. The caller decides how often to refresh and reports what comes back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from flux_common.auth.faults import ConfigurationRefused, Fault
from flux_common.auth.keyset import KeyRing, load_keys
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


def load_trust(path: Path, now: datetime) -> Trust:
    """Return the registry at `path` with the keys of its issuers; raise `ConfigurationRefused` with every fault."""
    return _load(path, now)[0]


class RegistrySource:
    """The registry at `path`, read at once and again whenever it or a key set changes.

    The constructor raises `ConfigurationRefused`: without a first good registry nothing starts. `faults` holds what is
    wrong with the file at present, and is empty when `trust` is what the file says.
    """

    def __init__(self, path: Path, now: datetime) -> None:
        self._path = path
        self.trust, self._stamps = _load(path, now)
        self.faults: tuple[Fault, ...] = ()

    def refresh(self, now: datetime) -> Refresh:
        """Look at the files, and read them again if any changed; never raises for what stands in them."""
        stamps = _stamps([self._path, *_key_files(self.trust.registry)])
        if stamps == self._stamps:
            self.trust, self.faults = replace(self.trust, keys=self.trust.keys.confirmed(now)), ()
            return Refresh.UNCHANGED
        try:
            trust, stamps = _load(self._path, now)
            _check_nobody_left(self.trust.registry, trust.registry)
        except ConfigurationRefused as refused:
            self.faults = refused.faults
            return Refresh.REFUSED
        self.trust, self._stamps, self.faults = trust, stamps, ()
        return Refresh.RELOADED


def _load(path: Path, now: datetime) -> tuple[Trust, _Stamps]:
    """Read everything; each file is stamped before it is read, so that a change meanwhile is seen the next time."""
    stamps = _stamps([path])
    registry = load_registry(path)
    stamps |= _stamps(_key_files(registry))
    return Trust(registry, load_keys(registry, now)), stamps


def _check_nobody_left(old: Registry, new: Registry) -> None:
    missing = sorted(old.agencies.keys() - new.agencies.keys())
    if missing:
        raise ConfigurationRefused(
            Fault("agencies", f'"{agency_id}" is gone; an agency is never removed, set suspended: true')
            for agency_id in missing
        )


def _key_files(registry: Registry) -> list[Path]:
    return sorted({issuer.jwks for issuer in registry.issuers.values()})


def _stamps(paths: list[Path]) -> _Stamps:
    return {path: _stamp(path) for path in paths}


def _stamp(path: Path) -> tuple[int, int, int, int] | None:
    """Times, size and inode: a mounted ConfigMap is exchanged by a symbolic link, which changes the inode."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
