"""Sources and destinations on the file system, by our own hand, for three measured reasons.

`obstore`'s local store renames atomically but never fsyncs; its listing fails as a whole when one file name holds a
control character or bytes that are not UTF-8, and archives have such names; and it follows symbolic links wherever they
lead. Here a file is written, fsynced, linked to its name (which is create-only and atomic) and its folder fsynced; an
object is opened by its resolved path, which must lie under an allowed root, and must be a regular file. Links to folders
are not followed, so a listing ends. The ETag is the time of the last change and the size, taken from the open file.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from flux_common.kernel.codes import Code
from flux_transform.adapters.store_cloud import conflict, unavailable
from flux_transform.domain.failures import NotStored, Rejected, WorkFailed
from flux_transform.domain.plan import Listed, PlannedObject

_PAGE_OBJECTS = 1_000
_NO_LINKS = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
)  # what file systems without links say

Writer = Callable[[Path, bytes], None]


def _etag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


def _inside(path: Path, roots: Sequence[Path]) -> bool:
    return any(path == root or root in path.parents for root in roots)


def _key(path: str) -> str:
    """Return a relative path as a key; bytes that are not UTF-8 are shown escaped (such an object cannot be fetched)."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class LocalSource:
    """The files below a folder, or a single file."""

    def __init__(self, folder: Path, only: str | None, roots: tuple[Path, ...]) -> None:
        self._folder, self._only, self._roots = folder, only, roots

    @classmethod
    def open(cls, path: Path, roots: tuple[Path, ...]) -> LocalSource:
        """Open a folder, or a file as a source of one object.

        Raises:
            WorkFailed: `SOURCE_NOT_ALLOWED` (outside the roots), `SOURCE_MISSING`.
        """
        resolved = path.resolve()
        if not _inside(resolved, roots):
            raise WorkFailed(Code.SOURCE_NOT_ALLOWED, "The path is outside the allowed roots", cause="policy")
        if resolved.is_file():
            return cls(resolved.parent, resolved.name, roots)
        if not resolved.is_dir():
            raise WorkFailed(Code.SOURCE_MISSING, "There is no such folder", cause="input")
        return cls(resolved, None, roots)

    async def list(self) -> AsyncIterator[Sequence[Listed]]:
        """Yield all regular files in pages."""
        entries = self._entries()
        try:
            while page := await asyncio.to_thread(lambda: list(islice(entries, _PAGE_OBJECTS))):
                yield page
        except OSError as problem:
            raise unavailable(Code.SOURCE_UNAVAILABLE, problem) from problem

    def _entries(self) -> Iterator[Listed]:
        folders = [""]
        while folders:
            folder = folders.pop()
            with os.scandir(self._folder / folder) as found:
                for entry in found:
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(name)
                    elif (self._only is None or name == self._only) and (status := _regular(entry)):
                        yield Listed(_key(name), status.st_size, _etag(status))
            if self._only is not None:
                return

    async def fetch(self, planned: PlannedObject) -> bytes:
        """Return an object's bytes, exactly as planned (ports.Source)."""
        return await asyncio.to_thread(self._read, planned)

    def _read(self, planned: PlannedObject) -> bytes:
        try:
            resolved = (self._folder / planned.key).resolve(strict=True)
            if not _inside(resolved, self._roots):
                raise Rejected(Code.SOURCE_NOT_ALLOWED, "a link leads outside the allowed roots")
            # Not following links at the last step, and not waiting for a writer should it have become a pipe.
            descriptor = os.open(resolved, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb", buffering=0) as file:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode) or _etag(status) != planned.etag:
                    raise Rejected(Code.SOURCE_CHANGED, "size or time of change is not the planned one")
                return _exactly(file.read(planned.size + 1), planned.size)
        except (FileNotFoundError, NotADirectoryError) as problem:
            raise Rejected(Code.SOURCE_CHANGED, "the object is gone") from problem
        except OSError as problem:
            raise unavailable(Code.SOURCE_UNAVAILABLE, problem) from problem


def _regular(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Return the status of a regular file, seen through links; None for pipes, devices and links into nothing."""
    try:
        status = entry.stat()
    except FileNotFoundError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _exactly(data: bytes | None, size: int) -> bytes:
    if data is None or len(data) != size:
        raise Rejected(Code.SOURCE_CHANGED, "the object is not of its planned size")
    return data


class LocalDestination:
    """The folder of one run on the file system. Writes are durable when they return."""

    def __init__(self, uri: str, folder: Path, roots: tuple[Path, ...]) -> None:
        if not _inside(folder.resolve(), roots):
            raise WorkFailed(Code.SOURCE_NOT_ALLOWED, "The path is outside the allowed roots", cause="policy")
        self._uri, self._folder = uri, folder.resolve()

    @property
    def uri(self) -> str:
        """Return the folder's URI."""
        return self._uri

    async def put(self, name: str, data: bytes) -> None:
        """Store a new file; the same content again is a success (ports.Destination)."""
        await self._in_thread(name, data, _create)

    async def replace(self, name: str, data: bytes) -> None:
        """Store a file over whatever has its name."""
        await self._in_thread(name, data, _replace)

    async def _in_thread(self, name: str, data: bytes, act: Writer) -> None:
        try:
            await asyncio.to_thread(self._act, name, data, act)
        except OSError as problem:
            raise unavailable(Code.STORE_UNAVAILABLE, problem) from problem

    def _act(self, name: str, data: bytes, act: Writer) -> None:
        path = self._folder / name
        if path.parent.resolve() != path.parent:
            raise WorkFailed(Code.SOURCE_NOT_ALLOWED, "A link inside the run's folder leads elsewhere", cause="policy")
        act(path, data)

    async def get(self, name: str) -> bytes:
        """Return a file's bytes."""
        return (await self._read(name, 0, None))[0]

    async def get_range(self, name: str, start: int, end: int) -> bytes:
        """Return the bytes from `start` to before `end`."""
        return (await self._read(name, start, end - start))[0]

    async def get_tail(self, name: str, length: int) -> tuple[bytes, int]:
        """Return the last `length` bytes and the file's size."""
        return await self._read(name, -length, None)

    async def _read(self, name: str, start: int, length: int | None) -> tuple[bytes, int]:
        try:
            return await asyncio.to_thread(_read_part, self._folder / name, start, length)
        except (FileNotFoundError, NotADirectoryError) as problem:
            raise NotStored(name) from problem
        except OSError as problem:
            raise unavailable(Code.STORE_UNAVAILABLE, problem) from problem


def _read_part(path: Path, start: int, length: int | None) -> tuple[bytes, int]:
    """Read from `start` (from the end if negative), `length` bytes or all; return them and the file's size."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size + start) if start < 0 else start)
        return file.read(-1 if length is None else length), size


def _create(path: Path, data: bytes) -> None:
    """Write a new file durably; if the name is taken, compare. The folder is fsynced in either case."""
    if not _linked(path, data) and path.read_bytes() != data:
        raise conflict(path.name)
    _sync_folder(path.parent)


def _linked(path: Path, data: bytes) -> bool:
    """Return whether the name was free and is now this content's."""
    if path.exists():
        return False
    written = _written(path, data)
    try:
        os.link(written, path)
    except FileExistsError:
        return False
    except OSError as problem:
        if problem.errno not in _NO_LINKS:
            raise
        written.replace(path)  # not create-only, but a name holds its content's digest, so only equals can meet
    finally:
        written.unlink(missing_ok=True)
    return True


def _replace(path: Path, data: bytes) -> None:
    _written(path, data).replace(path)
    _sync_folder(path.parent)


def _written(path: Path, data: bytes) -> Path:
    """Write `data` to a new file beside `path` and fsync it."""
    _make_folder(path.parent)
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
            os.fchmod(descriptor, 0o644)
    except OSError:
        Path(name).unlink()
        raise
    return Path(name)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it; a new folder is durable when its parent is fsynced."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
