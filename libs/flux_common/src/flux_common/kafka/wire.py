"""Reading record batches that anybody may have written.

Theory. A producer's bytes reach us as it framed them: the broker checks structure and CRC, never that a header's name
is UTF-8, and it counts a batch's size while it is compressed. aiokafka 0.14 raises out of `getmany` on such a name,
for ever, and decompresses without a bound. One record of one agency would stop a lane, or the process. So `Batches`
stands where aiokafka's `MemoryRecords` stood (`install`), and no batch can make it raise:

| batch or record | becomes |
|---|---|
| well-formed | what aiokafka makes of it, by its own compiled reader |
| a header name that is not UTF-8 | the record, with `\\xNN` in that name: no such name means anything to Flux |
| more than `HEADERS_READ` headers | the record with the first of them, which is more than any reader takes |
| a large record's header name of more than `NAME_BYTES_READ` | the record, with the beginning of that name |
| a record of more than `RECORD_BYTES_MAX` | its offset, marked `Unreadable` with a code and its value's digest |
| a batch that unfolds beyond `BATCH_BYTES_MAX`, or cannot be unfolded | its offsets, each marked with a code |
| a batch of more than `BATCH_RECORDS_MAX` records | the same |

A header of two bytes becomes an object of eighty, so no record is given to the compiled reader before its length is known to
be below `LARGE_BYTES`; a larger one is read here, up to its bounds. A batch that a poll stops in is *folded*: its unfolded
bytes go, and it is unfolded again to read on, from where it was (why: `holding.py`).
`FETCH_BYTES_MAX` bounds what the batches of one fetch may unfold to together; the rest is fetched again.
A CRC that does not match is a fault of disk or wire, not of a producer, and still raises.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, Final, NamedTuple

import cramjam
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import decode_varint

from flux_common.kafka.holding import Fetched
from flux_common.kernel.codes import Code

BATCH_BYTES_MAX: Final = 16 * 2**20
FETCH_BYTES_MAX: Final = 32 * 2**20
RECORD_BYTES_MAX: Final = 2 * 2**20  # what a topic takes of a record that is not compressed
LARGE_BYTES: Final = 64 * 2**10
HEADERS_READ: Final = 1_024
NAME_BYTES_READ: Final = 1_024  # of a large record's names: a byte may become sixteen, and no such name means anything
# More would not fit into BATCH_BYTES_MAX if they were records that anybody can read; a poll unfolds the batch for each of its
# bites, so without a bound a batch of a million empty records would be unfolded a thousand times.
BATCH_RECORDS_MAX: Final = 65_536

# Record batch, magic 2 (Kafka protocol, "Record Batch"): offset int64, length int32, leader epoch int32, magic int8,
# crc uint32, attributes int16, last offset delta int32, first and max timestamp int64, producer id int64, producer
# epoch int16, base sequence int32, record count int32.
_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_COUNT: Final = struct.Struct(">i")
_COUNT_AT: Final = 57
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
        self._owner.reading = reading = Reading(self)
        return reading

    def unfolded(self, *, again: bool) -> bytearray:
        """Return the batch without compression; raises _CannotUnfold."""
        if _COUNT.unpack_from(self._data, _COUNT_AT)[0] > BATCH_RECORDS_MAX:
            raise _CannotUnfold
        codec, folded = self._inner.compression_type, self._data[_HEADER.size :]
        header = bytearray(self._data[: _HEADER.size])
        header[_ATTRIBUTES_AT + 1] &= ~_CODEC_MASK & 0xFF
        whole = unfold(codec, folded, BATCH_BYTES_MAX) if codec else bytearray(folded)
        whole[:0] = header  # in place: a batch may be of many megabytes
        self._owner.unfolded += 0 if again else len(whole)
        return whole

    def unreadable(self, code: Code, read: int) -> Iterator[tuple[Record, int]]:
        """Yield a mark for every offset behind the first `read`."""
        inner = self._inner
        for offset in range(inner.base_offset + read, inner.next_offset):
            yield _marked(offset, inner.max_timestamp, inner.timestamp_type, code), _HEADER.size


class Reading:
    """The records of one batch, in order. Folded in between, it unfolds the batch again and goes on."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._read = 0
        self._at = _HEADER.size  # in the unfolded batch: behind what was read
        self._passed = 0  # bytes of records that were read before it was folded
        self._records: Iterator[tuple[Any, int]] | None = None
        self._readable = True

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._records is None:
            self._records = self._unfold()
        record, end = next(self._records)
        self._at = self._passed + end
        self._read += 1
        return record

    def fold(self) -> None:
        """Let the unfolded bytes go."""
        self._records = None

    def _unfold(self) -> Iterator[tuple[Any, int]]:
        """Return the records behind those that were read, each with where it ends in what is left of the batch."""
        data = self._try_to_unfold()
        if data is None:
            return self._batch.unreadable(Code.TOO_LARGE, self._read)
        self._passed = self._at - _HEADER.size
        del data[_HEADER.size : self._at]
        _COUNT.pack_into(data, _COUNT_AT, _COUNT.unpack_from(data, _COUNT_AT)[0] - self._read)
        return _read(data)

    def _try_to_unfold(self) -> bytearray | None:
        if self._readable:
            try:
                return self._batch.unfolded(again=self._read > 0)
            except _CannotUnfold:
                self._readable = False
        return None


class Batches:
    """The batches of one fetch of one Kafka partition, in aiokafka's `MemoryRecords` protocol."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0
        self.unfolded = 0
        self.reading: Reading | None = None

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

    def fold(self) -> None:
        """Let go of what is unfolded, until it is read on."""
        if self.reading is not None:
            self.reading.fold()

    def _end(self) -> int | None:
        if len(self._data) - self._at < _HEADER.size:
            return None
        length: int = struct.unpack_from(">i", self._data, self._at + _LENGTH_AT)[0]
        end = self._at + _OVERHEAD + length
        return end if end <= len(self._data) else None


def install() -> None:
    """Let aiokafka's fetcher read batches with `Batches` and keep them as `Fetched`.

    Fails loudly where an upgrade has moved these places.
    """
    for place, ours in (("MemoryRecords", Batches), ("FetchResult", Fetched)):
        if not hasattr(fetcher, place):
            raise ImportError(f"aiokafka.consumer.fetcher has no {place} any more; flux_common.kafka.wire needs it")
        setattr(fetcher, place, ours)


class _CannotUnfold(Exception):
    """The batch unfolds to more than the bound, or not at all."""


def unfold(codec: int, data: memoryview, limit: int) -> bytearray:
    """Return at most `limit` bytes that `data` is the compressed form of; raises _CannotUnfold."""
    try:
        plain = {1: _gunzip, 2: _unsnap, 3: _unlz4, 4: _unzstd}[codec](data, limit)
    except (OSError, EOFError, KeyError, ValueError, zlib.error, struct.error, cramjam.DecompressionError) as problem:
        raise _CannotUnfold from problem
    if len(plain) > limit:
        raise _CannotUnfold
    return plain


def _gunzip(data: memoryview, limit: int) -> bytearray:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        return bytearray(stream.read(limit + 1))


def _unlz4(data: memoryview, limit: int) -> bytearray:
    return _into(cramjam.lz4.decompress_into, data, limit)


def _unzstd(data: memoryview, limit: int) -> bytearray:
    return _into(cramjam.zstd.decompress_into, data, limit)


def _into(decompress: Any, data: memoryview, limit: int) -> bytearray:
    """Unfold into a buffer that is usually large enough, then into one of the limit's size, and cut it: nothing is copied."""
    for size in (min(limit, 8 * len(data) + 4096), limit):
        out = bytearray(size)
        try:
            del out[decompress(data, out) :]
        except cramjam.DecompressionError:
            if size == limit:
                raise
        else:
            return out
    raise AssertionError("unreachable")


def _unsnap(data: memoryview, limit: int) -> bytearray:
    """Unfold snappy in either of its forms: one raw block, or the blocks of xerial's stream."""
    if bytes(data[: len(_XERIAL)]) != _XERIAL:
        return bytearray(_unsnap_block(data, limit))
    out = bytearray()
    at = 16
    while at < len(data):
        (size,) = struct.unpack_from(">i", data, at)
        out += _unsnap_block(data[at + 4 : at + 4 + size], limit - len(out))
        at += 4 + size
    return out


def _unsnap_block(data: memoryview, limit: int) -> bytes:
    if cramjam.snappy.decompress_raw_len(data) > limit:
        raise _CannotUnfold
    return bytes(cramjam.snappy.decompress_raw(data))


def _read(data: bytearray) -> Iterator[tuple[Any, int]]:
    """Yield the records of an uncompressed batch, each with where it ends.

    From one on that is large, or has a header name that is not UTF-8, by the lenient reader.
    """
    strict, at, read = DefaultRecordBatch(data), _HEADER.size, 0
    while at < len(data):
        size, body = decode_varint(data, at)
        if size > LARGE_BYTES:
            break
        try:
            record = next(strict)
        except UnicodeDecodeError:
            break
        read, at = read + 1, body + size
        yield record if len(record.headers) <= HEADERS_READ else _with_fewer_headers(record), at
    yield from _read_leniently(data, at, read)


def _with_fewer_headers(record: Any) -> Record:
    headers = record.headers[:HEADERS_READ]
    return Record(record.offset, record.timestamp, record.timestamp_type, record.key, record.value, headers)


def _read_leniently(data: bytearray, at: int = _HEADER.size, read: int = 0) -> Iterator[tuple[Record, int]]:
    """Yield the records behind the first `read`, byte by byte as the protocol says, whatever they are."""
    header = _HEADER.unpack_from(data)
    for _ in range(read, header[12]):
        record, at = _read_record(data, at, header)
        yield record, at


def _read_record(data: bytearray, at: int, header: tuple[int, ...]) -> tuple[Record, int]:
    size, at = decode_varint(data, at)
    end = at + size
    at += 1  # attributes: unused by the protocol
    passed, at = decode_varint(data, at)
    delta, at = decode_varint(data, at)
    stamped = bool(header[5] & 0x08)
    offset, timestamp = header[0] + delta, header[8] if stamped else header[7] + passed
    if size > RECORD_BYTES_MAX:
        return _marked(offset, timestamp, int(stamped), Code.TOO_LARGE, _value_digest(data, at)), end
    key, at = _read_bytes(data, at)
    value, at = _read_bytes(data, at)
    return Record(offset, timestamp, int(stamped), key, value, _read_headers(data, at)), end


def _read_headers(data: bytearray, at: int) -> list[tuple[str, bytes | None]]:
    count, at = decode_varint(data, at)
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(min(count, HEADERS_READ)):
        name, at = _read_bytes(data, at)
        content, at = _read_bytes(data, at)
        headers.append(((name or b"")[:NAME_BYTES_READ].decode("utf-8", "backslashreplace"), content))
    return headers


def _value_digest(data: bytearray, at: int) -> bytes:
    """Return the digest of a value that is not copied, behind a key that is not, either."""
    size, at = decode_varint(data, at)
    size, at = decode_varint(data, at + max(size, 0))
    with memoryview(data) as whole:
        return sha256(whole[at : at + max(size, 0)]).digest()


def _marked(offset: int, timestamp: int, timestamp_type: int, code: Code, digest: bytes | None = None) -> Record:
    """Return what stands for a record whose bytes are not there; where its value could be told, with that one's digest."""
    return Record(offset, timestamp, timestamp_type, None, None, [(Unreadable(code), digest)])


def _read_bytes(data: bytearray, at: int) -> tuple[bytes | None, int]:
    size, at = decode_varint(data, at)
    return (None, at) if size < 0 else (bytes(data[at : at + size]), at + size)


install()
