"""Sources and destinations in object stores, through `obstore`: S3, Google Cloud Storage, Azure, and memory for tests.

Writes use create-only mode: the second writer of a name learns that it exists and compares. Reads name the planned
ETag, so that the store itself refuses an object that changed. `obstore` retries what is worth retrying; what it gives
up on is `Unavailable`, and the item is tried again later.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotModifiedError, PreconditionError
from obstore.store import ObjectStore

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Classification, Unavailable
from flux_transform.domain.failures import NotStored, Rejected, WorkFailed
from flux_transform.domain.plan import Listed, PlannedObject

_PAGE_OBJECTS = 1_000
_RETRY_SECONDS = 5.0


def unavailable(code: Code, problem: BaseException) -> Unavailable:
    """Return "try again later" for a store that did not answer; the text of its error may name credentials, so it stays out."""
    message = f"The store did not answer ({type(problem).__name__})"
    return Unavailable(code, message, retry_in=_RETRY_SECONDS, classification=Classification.STORAGE)


def _etag(meta: Any) -> str:
    """Return what changes when an object changes: its ETag, or its time of change where a store has none."""
    return str(meta["e_tag"] or meta["last_modified"].isoformat())


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name


class CloudSource:
    """The objects below a prefix of a bucket."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store, self._prefix = store, prefix

    async def list(self) -> AsyncIterator[Sequence[Listed]]:
        """Yield all objects in pages."""
        skipped = len(self._prefix) + 1 if self._prefix else 0
        try:
            async for page in obstore.list(self._store, self._prefix or None, chunk_size=_PAGE_OBJECTS):
                yield [Listed(meta["path"][skipped:], meta["size"], _etag(meta)) for meta in page]
        except (BaseError, OSError) as problem:
            raise unavailable(Code.SOURCE_UNAVAILABLE, problem) from problem

    async def fetch(self, planned: PlannedObject) -> bytes:
        """Return an object's bytes, exactly as planned (ports.Source)."""
        condition: Any = {"if_match": planned.etag} if planned.etag.startswith('"') else {}
        try:
            found = await obstore.get_async(self._store, _joined(self._prefix, planned.key), options=condition)
            if (found.meta["size"], _etag(found.meta)) != (planned.size, planned.etag):
                raise Rejected(Code.SOURCE_CHANGED, "size or ETag is not the planned one")
            return bytes(await found.bytes_async())
        except FileNotFoundError as problem:
            raise Rejected(Code.SOURCE_CHANGED, "the object is gone") from problem
        except (PreconditionError, NotModifiedError) as problem:
            raise Rejected(Code.SOURCE_CHANGED, "the ETag is not the planned one") from problem
        except (BaseError, OSError) as problem:
            raise unavailable(Code.SOURCE_UNAVAILABLE, problem) from problem


class CloudDestination:
    """The folder of one run in a bucket."""

    def __init__(self, uri: str, store: ObjectStore, prefix: str) -> None:
        self._uri, self._store, self._prefix = uri, store, prefix

    @property
    def uri(self) -> str:
        """Return the folder's URI."""
        return self._uri

    async def put(self, name: str, data: bytes) -> None:
        """Store a new file; the same content again is a success (ports.Destination)."""
        try:
            await obstore.put_async(self._store, _joined(self._prefix, name), data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            if await self.get(name) != data:
                raise conflict(name) from None
        except (BaseError, OSError) as problem:
            raise unavailable(Code.STORE_UNAVAILABLE, problem) from problem

    async def replace(self, name: str, data: bytes) -> None:
        """Store a file over whatever has its name."""
        try:
            await obstore.put_async(self._store, _joined(self._prefix, name), data)
        except (BaseError, OSError) as problem:
            raise unavailable(Code.STORE_UNAVAILABLE, problem) from problem

    async def get(self, name: str) -> bytes:
        """Return a file's bytes."""
        return (await self._get(name, {}))[0]

    async def get_range(self, name: str, start: int, end: int) -> bytes:
        """Return the bytes from `start` to before `end`."""
        return (await self._get(name, {"range": (start, end)}))[0]

    async def get_tail(self, name: str, length: int) -> tuple[bytes, int]:
        """Return the last `length` bytes and the file's size."""
        return await self._get(name, {"range": {"suffix": length}})

    async def _get(self, name: str, options: Any) -> tuple[bytes, int]:
        try:
            found = await obstore.get_async(self._store, _joined(self._prefix, name), options=options)
            return bytes(await found.bytes_async()), int(found.meta["size"])
        except FileNotFoundError as problem:
            raise NotStored(name) from problem
        except (BaseError, OSError) as problem:
            raise unavailable(Code.STORE_UNAVAILABLE, problem) from problem


def conflict(name: str) -> WorkFailed:
    """Return the failure for a name that is taken by other content: names hold digests, so the store is corrupt."""
    return WorkFailed(Code.CHAIN_CORRUPT, f"{name} exists with other content", cause="infrastructure")
