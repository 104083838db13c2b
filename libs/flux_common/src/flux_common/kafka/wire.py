"""Reading record batches that anybody may have written.

Theory. A producer's bytes reach us as it framed them: the broker checks structure and CRC, never that a header's name
is UTF-8, and it counts a batch's size while it is compressed. aiokafka 0.14 raises out of `getmany` on such a name,
for ever, and decompresses without a bound. One record of one agency would stop a lane, or the process. So `Batches`
stands where aiokafka's `MemoryRecords` stood (`install`), and no batch can make it raise:

| batch | becomes |
|---|---|
| well-formed | what aiokafka makes of it, by its own compiled reader |
| a header name that is not UTF-8 | the record, with `\\xNN` in that name: no such name means anything to Flux |
| unfolds beyond `BATCH_BYTES_MAX`, or cannot be unfolded | its offsets, each marked `Unreadable` with a code |

`FETCH_BYTES_MAX` bounds what the batches of one fetch may unfold to together; the rest is fetched again.
A CRC that does not match is a fault of disk or wire, not of a producer, and still raises.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

import cramjam
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import decode_varint

from flux_common.kernel.codes import Code

BATCH_BYTES_MAX: Final = 16 * 2**20
FETCH_BYTES_MAX: Final = 32 * 2**20

# Record batch, magic 2 (Kafka protocol, "Record Batch"): offset int64, length int32, leader epoch int32, magic int8,
# crc uint32, attributes int16, last offset delta int32, first and max timestamp int64, producer id int64, producer
# epoch int16, base sequence int32, record count int32.
_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_LENGTH_AT: Final = 8
_OVERHEAD: Final = 12
_ATTRIBUTES_AT: Final = 21
_CODEC_MASK: Final = 0x07
_XERIAL: Final = b"\x82SNAPPY\x00"


class Unreadable(str):
    """A header name that no producer can send: its record's bytes could not be read, for the reason it names."""

    __slots__ = ()


class Record(NamedTuple):
    """One record as aiokafka's fetcher wants it."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    checksum: None = None


class Batch:
    """One record batch; the fetcher reads its attributes first and its records only if it wants them."""

    def __init__(self, data: memoryview, owner: Batches) -> None:
        self._data = data
        self._owner = owner
        self._inner: Any = DefaultRecordBatch(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __next__(self) -> Any:
        return next(self._inner)

    def __iter__(self) -> Iterator[Any]:
        try:
            plain = self._unfolded()
        except _CannotUnfold:
            return self._unreadable(Code.TOO_LARGE)
        return _read(plain)

    def _unfolded(self) -> bytes | memoryview:
        """Return the batch without compression."""
        codec = self._inner.compression_type
        if codec == 0:
            self._owner.unfolded += len(self._data)
            return self._data
        plain = unfold(codec, self._data[_HEADER.size :], BATCH_BYTES_MAX)
        self._owner.unfolded += len(plain)
        header = bytearray(self._data[: _HEADER.size])
        header[_ATTRIBUTES_AT + 1] &= ~_CODEC_MASK & 0xFF
        return bytes(header) + plain

    def _unreadable(self, code: Code) -> Iterator[Record]:
        inner = self._inner
        mark: list[tuple[str, bytes | None]] = [(Unreadable(code), None)]
        for offset in range(inner.base_offset, inner.next_offset):
            yield Record(offset, inner.max_timestamp, inner.timestamp_type, None, None, mark)


class Batches:
    """The batches of one fetch of one Kafka partition, in aiokafka's `MemoryRecords` protocol."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0
        self.unfolded = 0

    def size_in_bytes(self) -> int:
        """Return the number of bytes fetched."""
        return len(self._data)

    def has_next(self) -> bool:
        """Tell whether a whole batch follows that may still be unfolded."""
        return self.unfolded < FETCH_BYTES_MAX and self._end() is not None

    def next_batch(self) -> Batch | None:
        """Return the next batch, None after the last whole one."""
        end = self._end()
        if end is None:
            return None
        data = self._data[self._at : end]
        self._at = end
        return Batch(data, self)

    def _end(self) -> int | None:
        if len(self._data) - self._at < _HEADER.size:
            return None
        length: int = struct.unpack_from(">i", self._data, self._at + _LENGTH_AT)[0]
        end = self._at + _OVERHEAD + length
        return end if end <= len(self._data) else None


def install() -> None:
    """Let aiokafka's fetcher read batches with `Batches`; fails loudly where an upgrade has moved that place."""
    if not hasattr(fetcher, "MemoryRecords"):
        raise ImportError("aiokafka.consumer.fetcher has no MemoryRecords any more; flux_common.kafka.wire needs it")
    fetcher.MemoryRecords = Batches


class _CannotUnfold(Exception):
    """The batch unfolds to more than the bound, or not at all."""


def unfold(codec: int, data: memoryview, limit: int) -> bytes:
    """Return at most `limit` bytes that `data` is the compressed form of; raises _CannotUnfold."""
    try:
        plain = {1: _gunzip, 2: _unsnap, 3: _unlz4, 4: _unzstd}[codec](data, limit)
    except (OSError, EOFError, KeyError, ValueError, zlib.error, struct.error, cramjam.DecompressionError) as problem:
        raise _CannotUnfold from problem
    if len(plain) > limit:
        raise _CannotUnfold
    return plain


def _gunzip(data: memoryview, limit: int) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        return stream.read(limit + 1)


def _unlz4(data: memoryview, limit: int) -> bytes:
    return _into(cramjam.lz4.decompress_into, data, limit)


def _unzstd(data: memoryview, limit: int) -> bytes:
    return _into(cramjam.zstd.decompress_into, data, limit)


def _into(decompress: Any, data: memoryview, limit: int) -> bytes:
    """Unfold into a buffer that is usually large enough, then into one of the limit's size."""
    for size in (min(limit, 8 * len(data) + 4096), limit):
        out = bytearray(size)
        try:
            return bytes(memoryview(out)[: decompress(data, out)])
        except cramjam.DecompressionError:
            if size == limit:
                raise
    raise AssertionError("unreachable")


def _unsnap(data: memoryview, limit: int) -> bytes:
    """Unfold snappy in either of its forms: one raw block, or the blocks of xerial's stream."""
    if bytes(data[: len(_XERIAL)]) != _XERIAL:
        return _unsnap_block(data, limit)
    out = bytearray()
    at = 16
    while at < len(data):
        (size,) = struct.unpack_from(">i", data, at)
        out += _unsnap_block(data[at + 4 : at + 4 + size], limit - len(out))
        at += 4 + size
    return bytes(out)


def _unsnap_block(data: memoryview, limit: int) -> bytes:
    if cramjam.snappy.decompress_raw_len(data) > limit:
        raise _CannotUnfold
    return bytes(cramjam.snappy.decompress_raw(data))


def _read(plain: bytes | memoryview) -> Iterator[Any]:
    """Yield the records of an uncompressed batch; from a header name on that is not UTF-8, by the lenient reader."""
    read = 0
    try:
        for record in DefaultRecordBatch(plain):
            yield record
            read += 1
    except UnicodeDecodeError:
        yield from islice(_read_leniently(plain), read, None)


def _read_leniently(plain: bytes | memoryview) -> Iterator[Record]:
    """Yield the same, byte by byte as the protocol says, whatever the header names are."""
    header = _HEADER.unpack_from(plain)
    data = bytearray(plain)
    at = _HEADER.size
    for _ in range(header[12]):
        record, at = _read_record(data, at, header)
        yield record


def _read_record(data: bytearray, at: int, header: tuple[int, ...]) -> tuple[Record, int]:
    _, at = decode_varint(data, at)
    at += 1  # attributes: unused by the protocol
    passed, at = decode_varint(data, at)
    delta, at = decode_varint(data, at)
    key, at = _read_bytes(data, at)
    value, at = _read_bytes(data, at)
    count, at = decode_varint(data, at)
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        name, at = _read_bytes(data, at)
        content, at = _read_bytes(data, at)
        headers.append(((name or b"").decode("utf-8", "backslashreplace"), content))
    stamped = bool(header[5] & 0x08)
    timestamp = header[8] if stamped else header[7] + passed
    return Record(header[0] + delta, timestamp, int(stamped), key, value, headers), at


def _read_bytes(data: bytearray, at: int) -> tuple[bytes | None, int]:
    size, at = decode_varint(data, at)
    return (None, at) if size < 0 else (bytes(data[at : at + size]), at + size)


install()
