"""Ids are derived: the same decision has the same id for ever, on every machine."""

from __future__ import annotations

import hashlib
import json
from uuid import UUID

import pytest
import rfc8785
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_common.kernel import ids
from flux_common.kernel.positions import TopicPartition

RUN = "ea0b4bbd-4e45-5d60-9c1c-9c9dd5f9c2a1"

# org.apache.kafka.common.utils.UtilsTest.testMurmur2
MURMUR2 = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]


@pytest.mark.parametrize(("key", "expected"), MURMUR2)
def test_murmur2_is_kafkas(key: bytes, expected: int) -> None:
    """Kafka's own vectors, made positive as its partitioner makes them."""
    assert ids.murmur2(key) == expected & 0x7FFFFFFF


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_murmur2_is_every_clients(key: bytes) -> None:
    """An independent client places every key on the same Kafka partition."""
    assert ids.murmur2(key) == aiokafka_murmur2(key) & 0x7FFFFFFF


def test_ids_are_stable() -> None:
    """These ids stand in databases and topics; whoever changes how they are made breaks what is stored."""
    position = TopicPartition("flux.nasa.run.requests.v1", 2).at(41)

    assert [
        str(ids.run_id("nasa", "r-1")),
        str(ids.decided_id("ingest", "k3vXw1ZmTQO0e2mT9bYw8A", position, 0)),
        str(ids.progress_id("flux.progress.sliced.v1", RUN, "extract", 3, 2, 7)),
        str(ids.progress_id("flux.progress.alive.v1", RUN, "extract", 3, 2, None, "w:0", 12)),
        str(ids.dispatch_id("flux.work.dispatched.v1", RUN, 1, "plan", 0, 1)),
        str(ids.dispatch_id("flux.work.fenced.v1", RUN, 2, None, None, 0)),
        str(ids.terminal_id(RUN, 1)),
    ] == STABLE


def test_an_id_is_version_5() -> None:
    """RFC 9562 §5.5."""
    assert {ids.run_id("nasa", "r-1").version, ids.terminal_id(RUN, 1).version} == {5}


def test_a_decisions_id_tells_everything_apart() -> None:
    """Service, topic id, Kafka partition, offset and ordinal all count."""
    tp = TopicPartition("t", 1)
    made: set[UUID] = {
        ids.decided_id("ingest", "A", tp.at(10), 0),
        ids.decided_id("checkpoint", "A", tp.at(10), 0),
        ids.decided_id("ingest", "B", tp.at(10), 0),
        ids.decided_id("ingest", "A", TopicPartition("t", 11).at(0), 0),
        ids.decided_id("ingest", "A", tp.at(11), 0),
        ids.decided_id("ingest", "A", tp.at(10), 1),
    }

    assert len(made) == 6


@settings(deadline=None)
@given(st.lists(st.none() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(st.characters(exclude_categories=["Cs"]))))
def test_the_name_of_a_derived_id_is_canonical(parts: list[str | int | None]) -> None:
    """What is hashed is the RFC 8785 form, so that any language can derive the same id."""
    assert json.dumps(parts, separators=(",", ":"), ensure_ascii=False).encode() == rfc8785.dumps(parts)


def test_an_agencys_shard() -> None:
    """The first four bytes of the SHA-256, modulo 4; all shards are in use."""
    agencies = [f"agency-{n}" for n in range(100)]
    expected = [int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % 4 for name in agencies]

    assert [ids.shard_of(name) for name in agencies] == expected
    assert set(expected) == {0, 1, 2, 3}


def test_system_facts_have_a_kafka_partition_of_their_own() -> None:
    """`_system` is on 0, no agency ever is."""
    placed = {ids.fact_partition(f"agency-{n}", 5) for n in range(200)}

    assert (ids.fact_partition("_system", 5), placed) == (0, {1, 2, 3, 4})


def test_an_items_name() -> None:
    """`run_id/kind/number`."""
    assert ids.item_name(RUN, "gather", 2) == f"{RUN}/gather/2"


def test_a_digest() -> None:
    """64 lower-case hexadecimal digits (FIPS 180-4, empty message)."""
    assert ids.sha256_hex(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


# Computed by hand from SHA-1 and the names that docs/protocol.md gives.
STABLE = [
    "80c5e530-cad4-580b-a3af-f3ea9ae06c72",
    "5a5f48a4-6bb4-5795-abf0-576b2b0a6f80",
    "2b512f82-c7b8-55c4-87a7-a304de6b76ff",
    "3250cd71-a7f1-5b33-80b4-94e9b2a20fdc",
    "0084efac-a29d-55dc-a720-ccf4a2e4ee28",
    "822e11d8-c68f-53ca-9c97-3d252f54b56b",
    "417159f1-03a0-5ce0-b550-1d1dab901457",
]
