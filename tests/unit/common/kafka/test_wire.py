"""Reading record batches: what aiokafka reads is read alike, and nothing that a producer can frame raises or grows."""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import Any

import cramjam
import pytest
from aiokafka.codec import lz4_encode, snappy_encode, zstd_encode
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from flux_common.kafka import wire
from flux_common.kafka.wire import NAME_BYTES_READ, Batches, Unreadable
from flux_common.kernel.codes import Code

CODECS: dict[int, Callable[[bytes], bytes]] = {
    1: gzip.compress,
    2: snappy_encode,
    3: lz4_encode,
    4: zstd_encode,
}
Row = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]


def batch(rows: list[Row], codec: int = 0, base: int = 0) -> bytes:
    """Return the bytes of one batch as a broker stores it."""
    builder = DefaultRecordBatchBuilder(
        2, codec, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=0, batch_size=2**24
    )
    for n, (key, value, headers) in enumerate(rows):
        builder.append(n, 1000 + n, key, value, headers)
    data = bytearray(builder.build())
    struct.pack_into(">q", data, 0, base)
    return bytes(data)


def read(data: bytes, reader: Any = Batches) -> list[tuple[Any, ...]]:
    """Return every record of a fetch."""
    batches, found = reader(data), []
    while batches.has_next():
        found += [
            (r.offset, r.timestamp, r.timestamp_type, r.key, r.value, list(r.headers)) for r in batches.next_batch()
        ]
    return found


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
some_bytes = st.none() | st.binary(max_size=20)
rows = st.lists(
    st.tuples(st.binary(max_size=5), some_bytes, st.lists(st.tuples(names, some_bytes), max_size=3)),
    min_size=1,
    max_size=8,
)


@given(st.lists(rows, min_size=1, max_size=3), st.sampled_from([0, *CODECS]))
def test_reads_what_aiokafka_reads(fetched: list[list[Row]], codec: int) -> None:
    """For every batch that aiokafka can read, in every codec, the records are the same."""
    data = b"".join(batch(each, codec, base=100 * n) for n, each in enumerate(fetched))

    assert read(data) == read(data, MemoryRecords)


@given(rows)
def test_the_lenient_reader_agrees_with_the_strict_one(each: list[Row]) -> None:
    """Where both can read a batch, byte by byte gives the same records as aiokafka's reader."""
    data = batch(each, base=7)
    lenient = [
        (r.offset, r.timestamp, r.timestamp_type, r.key, r.value, r.headers)
        for r, _ in wire._read_leniently(bytearray(data))
    ]

    assert lenient == read(data)


def test_a_header_name_that_is_not_utf8_is_escaped_and_the_rest_is_read() -> None:
    """Only that name is changed; records before and after it are as they were."""
    data = batch([(b"k", b"1", [("ok", b"x")]), (b"k", b"2", [("AAAA", b"\xff")]), (b"k", b"3", [])])
    data = data.replace(b"AAAA", b"\xff\xfea\x00")

    assert [(value, headers) for *_, value, headers in read(data)] == [
        (b"1", [("ok", b"x")]),
        (b"2", [("\\xff\\xfea\x00", b"\xff")]),
        (b"3", []),
    ]


def test_a_partial_batch_at_the_end_is_left() -> None:
    """A fetch that ends inside a batch yields the whole ones before it."""
    whole = batch([(b"k", b"1", [])])

    assert len(read(whole + batch([(b"k", b"2", [])], base=1)[:-3])) == 1
    assert Batches(whole[:40]).next_batch() is None


@pytest.mark.parametrize("codec", CODECS)
def test_what_unfolds_beyond_the_bound_becomes_marked_offsets(codec: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every offset of the batch is there, without its bytes and with a code; the next batch is read."""
    monkeypatch.setattr(wire, "BATCH_BYTES_MAX", 2**20)
    bomb = batch([(b"k", b"x" * 2**20, []), (b"k", b"y" * 2**20, [])], codec, base=5)
    found = read(bomb + batch([(b"k", b"after", [])], base=7))
    marks = [headers[0][0] for *_, headers in found[:2]]

    assert [row[0] for row in found] == [5, 6, 7]
    assert [row[4] for row in found] == [None, None, b"after"]
    assert marks == [Code.TOO_LARGE, Code.TOO_LARGE]
    assert {type(mark) for mark in marks} == {Unreadable}


def test_what_cannot_be_unfolded_becomes_marked_offsets() -> None:
    """A batch whose compressed bytes are broken, or of an unknown codec, does not raise."""
    broken = bytearray(batch([(b"k", b"x" * 100, [])], codec=1))
    broken[-20:] = b"\x00" * 20
    unknown = bytearray(batch([(b"k", b"x" * 100, [])], codec=1))
    unknown[22] = 7

    assert [type(read(bytes(data))[0][5][0][0]) for data in (broken, unknown)] == [Unreadable, Unreadable]


@pytest.mark.parametrize("codec", CODECS)
def test_unfolds_exactly_up_to_the_limit(codec: int) -> None:
    """A byte more than the limit is refused; the limit itself, and nothing at all, are not."""
    for size in (0, 1, 4095, 5000):
        folded = memoryview(CODECS[codec](b"z" * size))

        assert wire.unfold(codec, folded, 5000) == b"z" * size
    with pytest.raises(wire._CannotUnfold):
        wire.unfold(codec, memoryview(CODECS[codec](b"z" * 5001)), 5000)


def test_snappy_is_read_in_both_its_forms() -> None:
    """A raw block as well as xerial's stream of blocks."""
    plain = b"abc" * 30_000
    raw = bytes(cramjam.snappy.compress_raw(plain))

    assert wire.unfold(2, memoryview(raw), 2**20) == plain
    assert wire.unfold(2, memoryview(snappy_encode(plain)), 2**20) == plain


def test_a_fetch_stops_unfolding_at_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batches behind the bound are left; the client fetches them again from there."""
    monkeypatch.setattr(wire, "FETCH_BYTES_MAX", 2**20)
    data = b"".join(batch([(b"k", b"x" * 2**19, [])], 1, base=n) for n in range(5))

    assert [row[0] for row in read(data)] == [0, 1]


def test_aiokafka_reads_through_it() -> None:
    """The place in aiokafka is taken; where it is gone the import fails, and says so."""
    assert fetcher.MemoryRecords is Batches


def test_a_moved_place_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An aiokafka without that name is refused."""
    monkeypatch.delattr(fetcher, "MemoryRecords")
    with pytest.raises(ImportError, match="MemoryRecords"):
        wire.install()


@given(rows, st.sampled_from([0, *CODECS]), st.integers(1, 3))
def test_a_batch_that_is_folded_goes_on_where_it_was(each: list[Row], codec: int, step: int) -> None:
    """Unfolded anew after every so many records, a batch yields the same records, each once."""
    data = batch(each, codec, base=7)
    batches = Batches(data)
    reading: Iterator[Any] = iter(batches.next_batch() or ())
    found = []
    for number, record in enumerate(reading, 1):
        found.append(
            (record.offset, record.timestamp, record.timestamp_type, record.key, record.value, list(record.headers))
        )
        if number % step == 0:
            batches.fold()

    assert found == read(data, MemoryRecords)
    assert list(reading) == []


def test_what_cannot_be_unfolded_is_told_once_an_offset_though_it_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its marks go on where they were, too."""
    monkeypatch.setattr(wire, "BATCH_BYTES_MAX", 1_000)
    batches = Batches(batch([(b"k", b"x" * 500, [])] * 3, 1, base=5))
    offsets = []
    for record in batches.next_batch() or ():
        offsets.append(record.offset)
        batches.fold()

    assert offsets == [5, 6, 7]


@pytest.mark.parametrize("codec", [0, 1])
def test_a_record_that_no_topic_would_take_unfolded_becomes_a_marked_offset(codec: int) -> None:
    """Its bytes are not made an object of; the records before and behind it in its batch are as they were."""
    large, largest = b"x" * 2**20, b"x" * (wire.RECORD_BYTES_MAX - 20)
    values = [b"before", largest, b"y" * wire.RECORD_BYTES_MAX, b"between", large, b"behind"]
    found = read(batch([(None, value, [("h", b"1")]) for value in values], codec))

    assert [row[4] for row in found] == [b"before", largest, None, b"between", large, b"behind"]
    assert found[2][5] == [(Code.TOO_LARGE, hashlib.sha256(values[2]).digest())]
    assert type(found[2][5][0][0]) is Unreadable
    assert [row[:3] for row in found] == [(n, 1000 + n, 0) for n in range(6)]


@pytest.mark.parametrize("number", [2_000, 40_000])
def test_of_headers_without_end_the_first_are_read(number: int) -> None:
    """Two bytes of the wire are eighty of memory: whatever the record's size, no more are kept than any reader takes."""
    found = read(batch([(b"k", b"1", [("h", None)] * number), (b"k", b"2", [])], codec=1))

    assert [(row[4], len(row[5])) for row in found] == [(b"1", wire.HEADERS_READ), (b"2", 0)]


def test_a_name_that_is_not_utf8_behind_many_records_costs_no_second_look_at_them() -> None:
    """The lenient reader goes on where the strict one stopped."""
    rows: list[Row] = [(b"k", b"%d" % n, []) for n in range(3_000)]
    data = batch([*rows, (b"k", b"bad", [("AAAA", b"x")]), (b"k", b"last", [])]).replace(b"AAAA", b"\xff\xfea\x00")

    assert [row[4] for row in read(data)] == [*(value for _, value, _ in rows), b"bad", b"last"]


def test_a_name_without_end_is_read_to_its_beginning() -> None:
    """Two million bytes that are no UTF-8 would become eight million characters, or thirty-two."""
    name = "\U0001f600" + "x" * 500_000
    (found,) = read(batch([(b"k", b"v", [(name, b"")])]))

    assert [len(name) for name, _ in found[5]] == [NAME_BYTES_READ - 3]
    assert found[3:5] == (b"k", b"v")


@pytest.mark.parametrize("more", [0, 1])
def test_a_batch_of_more_records_than_anybody_could_read_is_not_unfolded(
    monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    """Each of its offsets is marked; up to the bound it is read as ever."""
    monkeypatch.setattr(wire, "BATCH_RECORDS_MAX", 20)
    found = read(batch([(None, b"", [])] * (20 + more), 4))

    assert [row[0] for row in found] == list(range(20 + more))
    assert {isinstance(row[5][0][0], Unreadable) if row[5] else False for row in found} == {bool(more)}
