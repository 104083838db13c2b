"""Opening sources and destinations: who may use which URI, and which adapter serves it.

A URI outside the agency's allowed prefixes was refused at admission and is refused here again, because the worker is
where bytes move. `file://` is allowed only under configured roots, judged after symbolic links are resolved. Everything
of a run lies under `<destination>/<run_id>/`, so two runs never touch each other's files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from obstore.exceptions import BaseError
from obstore.store import MemoryStore, ObjectStore, from_url

from flux_common.kernel.codes import Code
from flux_transform.adapters.store_cloud import CloudDestination, CloudSource
from flux_transform.adapters.store_local import LocalDestination, LocalSource
from flux_transform.domain.failures import WorkFailed
from flux_transform.domain.items import Item
from flux_transform.ports import Destination, Source

SCHEMES = frozenset({"file", "s3", "gs", "az", "memory"})


@dataclass(frozen=True, slots=True)
class Access:
    """What may be read and written: roots of the file system for all, and URI prefixes per agency.

    An agency that has no entry in `prefixes` may use every scheme (and, of files, the roots); one that has an entry may
    use nothing else. `memory://` is for tests and must be allowed explicitly.
    """

    file_roots: tuple[Path, ...] = ()
    prefixes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    memory: bool = False

    def check(self, agency_id: str, uri: str) -> None:
        """Refuse what the agency may not use.

        Raises:
            WorkFailed: `SOURCE_NOT_ALLOWED`.
        """
        parts = urlsplit(uri)
        if parts.scheme not in SCHEMES or (parts.scheme == "memory" and not self.memory):
            raise not_allowed(f"The scheme {parts.scheme!r} is not allowed")
        if parts.query or parts.fragment or ".." in unquote(parts.path).split("/"):
            raise not_allowed("A URI must not have a query, a fragment or dot segments")
        prefixes = self.prefixes.get(agency_id)
        if prefixes is not None and not any(_below(uri, prefix) for prefix in prefixes):
            raise not_allowed("The URI is outside the agency's prefixes")

    def roots(self) -> tuple[Path, ...]:
        """Return the allowed roots with symbolic links resolved."""
        return tuple(root.resolve() for root in self.file_roots)


def not_allowed(message: str) -> WorkFailed:
    """Return the failure of an item that names a place it may not use."""
    return WorkFailed(Code.SOURCE_NOT_ALLOWED, message, cause="policy")


def _below(uri: str, prefix: str) -> bool:
    """Return whether a URI is a prefix or lies below it; `s3://a/b` is not below `s3://a/bc` nor the other way round."""
    prefix = prefix.rstrip("/")
    return uri.rstrip("/") == prefix or uri.startswith(f"{prefix}/")


class OpenStores:
    """The stores that items name, opened on demand. Credentials come from the worker's environment or mounted files."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._memory: dict[str, MemoryStore] = {}
        self._cloud: dict[str, ObjectStore] = {}

    def source(self, item: Item) -> Source:
        """Open an item's source.

        Raises:
            WorkFailed: `SOURCE_NOT_ALLOWED`, or `SOURCE_MISSING` for a folder that is not there.
        """
        uri = item.job.source_uri
        self._access.check(item.agency_id, uri)
        if uri.startswith("file:"):
            return LocalSource.open(_local_path(uri), self._access.roots())
        return CloudSource(*self._store(uri))

    def destination(self, item: Item) -> Destination:
        """Open the run's own folder.

        Raises:
            WorkFailed: `SOURCE_NOT_ALLOWED`.
        """
        uri = item.job.destination_uri
        self._access.check(item.agency_id, uri)
        folder = f"{uri.rstrip('/')}/{item.run_id}"
        if uri.startswith("file:"):
            return LocalDestination(folder, _local_path(folder), self._access.roots())
        return CloudDestination(folder, *self._store(folder))

    def _store(self, uri: str) -> tuple[ObjectStore, str]:
        """Return the store of a URI's bucket, and the prefix inside it (no slash at either end)."""
        parts = urlsplit(uri)
        bucket, prefix = f"{parts.scheme}://{parts.netloc}", unquote(parts.path).strip("/")
        if parts.scheme == "memory":
            return self._memory.setdefault(bucket, MemoryStore()), prefix
        if bucket not in self._cloud:
            try:
                self._cloud[bucket] = from_url(bucket)
            except (BaseError, ValueError) as problem:
                raise not_allowed("The URI names no bucket that can be opened") from problem
        return self._cloud[bucket], prefix


def _local_path(uri: str) -> Path:
    """Return the path of a `file://` URI."""
    parts = urlsplit(uri)
    path = unquote(parts.path)
    if parts.netloc not in {"", "localhost"} or not path.startswith("/") or "\0" in path:
        raise not_allowed("A file URI must be file:///path")
    return Path(path)
