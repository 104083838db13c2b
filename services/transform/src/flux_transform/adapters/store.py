"""Opening sources and destinations: who may use which URI, and which adapter serves it.

A URI outside the agency's allowed prefixes was refused at admission and is refused here again, because the worker is
where bytes move. `file://` is allowed only under configured roots, judged after symbolic links are resolved; where an
agency has prefixes, only where a root and a prefix overlap, so a link from its own folder into another agency's leads
nowhere. Everything of a run lies under `<destination>/<run_id>/`, so two runs never touch each other's files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from obstore.exceptions import BaseError
from obstore.store import MemoryStore, ObjectStore, from_url
from pydantic import SecretStr

from flux_common.auth.registry import within
from flux_common.kernel.codes import Code
from flux_transform.adapters.store_cloud import CloudDestination, CloudSource
from flux_transform.adapters.store_local import LocalDestination, LocalSource
from flux_transform.domain.failures import WorkFailed
from flux_transform.domain.items import Item
from flux_transform.ports import Destination, Source

_PREFIXES: Final = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
SCHEMES = frozenset({"file", "s3", "gs", "az", "memory"})
URI_CHARS_MAX = 2048 - len(f"/manifest-{'0' * 64}.json")  # of a run's folder, so that its manifest has a legal URI


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Where an agency's sources and destinations may lie; each ends with a slash. None at all: nowhere."""

    sources: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()


PrefixesOf = Callable[[str], Prefixes]


@dataclass(frozen=True, slots=True)
class Access:
    """What may be read and written: roots of the file system for all, and URI prefixes per agency.

    Without `prefixes_of` every agency may use every scheme (and, of files, the roots). `memory://` is for tests and must
    be allowed explicitly.
    """

    file_roots: tuple[Path, ...] = ()
    prefixes_of: PrefixesOf | None = None
    memory: bool = False

    def sources(self, agency_id: str) -> tuple[str, ...] | None:
        """Return the prefixes of an agency's sources; None: nothing but the roots bounds them."""
        return self.prefixes_of(agency_id).sources if self.prefixes_of else None

    def destinations(self, agency_id: str) -> tuple[str, ...] | None:
        """Return the prefixes of an agency's destinations; None: nothing but the roots bounds them."""
        return self.prefixes_of(agency_id).destinations if self.prefixes_of else None

    def check(self, uri: str, prefixes: Sequence[str] | None) -> None:
        """Refuse what may not be used.

        Raises:
            WorkFailed: `SOURCE_NOT_ALLOWED`.
        """
        parts = urlsplit(uri)
        if parts.scheme not in SCHEMES or (parts.scheme == "memory" and not self.memory):
            raise not_allowed(f"The scheme {parts.scheme!r} is not allowed")
        if parts.query or parts.fragment or ".." in unquote(parts.path).split("/"):
            raise not_allowed("A URI must not have a query, a fragment or dot segments")
        if prefixes is not None and not within(uri, prefixes):
            raise not_allowed("The URI is outside the agency's prefixes")

    def roots(self, prefixes: Sequence[str] | None) -> tuple[Path, ...]:
        """Return the folders in which files may lie, symbolic links resolved: where roots and prefixes overlap."""
        roots = [root.resolve() for root in self.file_roots]
        if prefixes is None:
            return tuple(roots)
        folders = [_local_path(prefix).resolve() for prefix in prefixes if prefix.startswith("file:")]
        pairs = [(root, folder) for root in roots for folder in folders]
        return tuple(
            folder if folder.is_relative_to(root) else root
            for root, folder in pairs
            if folder.is_relative_to(root) or root.is_relative_to(folder)
        )


def not_allowed(message: str) -> WorkFailed:
    """Return the failure of an item that names a place it may not use."""
    return WorkFailed(Code.SOURCE_NOT_ALLOWED, message, cause="policy")


class OpenStores:
    """The stores that items name, opened on demand.

    `secrets` are what operators put into files, by the name of the variable that a store would look for; the rest of a
    store's configuration comes from variables, and credentials from the process' own identity where there are none.
    """

    def __init__(self, access: Access, secrets: Mapping[str, SecretStr] | None = None) -> None:
        self._access = access
        self._secrets = secrets or {}
        self._memory: dict[str, MemoryStore] = {}
        self._cloud: dict[str, ObjectStore] = {}

    def source(self, item: Item) -> Source:
        """Open an item's source.

        Raises:
            WorkFailed: `SOURCE_NOT_ALLOWED`, or `SOURCE_MISSING` for a folder that is not there.
        """
        uri, prefixes = item.job.source_uri, self._access.sources(item.agency_id)
        self._access.check(uri, prefixes)
        if uri.startswith("file:"):
            return LocalSource.open(_local_path(uri), self._access.roots(prefixes))
        return CloudSource(*self._store(uri))

    def destination(self, item: Item) -> Destination:
        """Open the run's own folder.

        Raises:
            WorkFailed: `SOURCE_NOT_ALLOWED`.
        """
        uri, prefixes = item.job.destination_uri, self._access.destinations(item.agency_id)
        self._access.check(uri, prefixes)
        folder = f"{uri.rstrip('/')}/{item.run_id}"
        if len(folder) > URI_CHARS_MAX:
            raise not_allowed(
                f"The destination's URI is too long: a run's folder has {URI_CHARS_MAX} characters at most"
            )
        if uri.startswith("file:"):
            return LocalDestination(folder, _local_path(folder), self._access.roots(prefixes))
        return CloudDestination(folder, *self._store(folder))

    def _store(self, uri: str) -> tuple[ObjectStore, str]:
        """Return the store of a URI's bucket, and the prefix inside it (no slash at either end)."""
        parts = urlsplit(uri)
        bucket, prefix = f"{parts.scheme}://{parts.netloc}", unquote(parts.path).strip("/")
        if parts.scheme == "memory":
            return self._memory.setdefault(bucket, MemoryStore()), prefix
        if bucket not in self._cloud:
            try:
                self._cloud[bucket] = from_url(bucket, config=self._config(parts.scheme))
            except (BaseError, ValueError) as problem:
                raise not_allowed("The URI names no bucket that can be opened") from problem
        return self._cloud[bucket], prefix

    def _config(self, scheme: str) -> Any:
        """Return the secrets that are for a kind of store, as its client wants them."""
        named = self._secrets.items()
        return {n.lower(): s.get_secret_value() for n, s in named if n.startswith(_PREFIXES[scheme])}


def _local_path(uri: str) -> Path:
    """Return the path of a `file://` URI."""
    parts = urlsplit(uri)
    path = unquote(parts.path)
    if parts.netloc not in {"", "localhost"} or not path.startswith("/") or "\0" in path:
        raise not_allowed("A file URI must be file:///path")
    return Path(path)
