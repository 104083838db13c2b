"""Identities that are derived, never drawn: deciding the same thing again names the same thing again.

Source: docs/protocol.md (`ce_id`, shards), RFC 9562 §5.5 (UUIDv5), RFC 8785 (the JCS form of a list of strings and
integers, which for these values is exactly what `json.dumps` writes without spaces).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Final, Literal
from uuid import UUID, uuid5

from flux_common.kernel.positions import Position

NS_FLUX: Final = UUID("6f9a3c52-9d0b-5c7e-8a41-d3f1c0de0001")
SYSTEM_AGENCY: Final = "_system"
SHARDS: Final = 4

ItemKind = Literal["plan", "extract", "gather", "finalize"]


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of `data` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def run_id(agency_id: str, request_id: str) -> UUID:
    """Return the id of the run that `request_id` of `agency_id` names, for ever the same."""
    return uuid5(NS_FLUX, f"{agency_id}/{request_id}")


def derived_id(parts: Sequence[str | int | None]) -> UUID:
    """Return UUIDv5 of the canonical JSON of `parts`."""
    return uuid5(NS_FLUX, json.dumps(list(parts), separators=(",", ":"), ensure_ascii=False))


def decided_id(service: str, topic_id: str, position: Position, ordinal: int) -> UUID:
    """Return the id of the `ordinal`-th event that `service` decides from the record at `position`."""
    return derived_id([service, topic_id, position.tp.kafka_partition, position.offset, ordinal])


def progress_id(
    event_type: str, run: str, kind: ItemKind, number: int, term: int, seq: int | None, *more: str | int
) -> UUID:
    """Return the id of a worker's report on an item; `alive` adds the worker and its counter."""
    return derived_id([event_type, run, kind, number, term, seq, *more])


def dispatch_id(
    event_type: str, run: str, run_attempt: int, kind: ItemKind | None, number: int | None, term: int
) -> UUID:
    """Return the id of an event that the dispatcher derives from state."""
    return derived_id([event_type, run, run_attempt, kind, number, term])


def terminal_id(run: str, run_attempt: int) -> UUID:
    """Return the id of the one terminal event of a run attempt."""
    return derived_id(["terminal", run, run_attempt])


def shard_of(agency_id: str) -> int:
    """Return the shard of an agency: the first four bytes of its SHA-256, modulo `SHARDS`."""
    return int.from_bytes(hashlib.sha256(agency_id.encode()).digest()[:4], "big") % SHARDS


def murmur2(data: bytes) -> int:
    """Return Kafka's murmur2 hash of a key, as a non-negative 31-bit number.

    Source: org.apache.kafka.common.utils.Utils.murmur2 and toPositive; it places keys on Kafka partitions.
    """
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) & ~3
    for i in range(0, whole, 4):
        k = (int.from_bytes(data[i : i + 4], "little") * m) & mask
        k = ((k ^ (k >> 24)) * m) & mask
        h = ((h * m) & mask) ^ k
    tail = data[whole:]
    if tail:
        h = ((h ^ int.from_bytes(tail, "little")) * m) & mask
    h = ((h ^ (h >> 13)) * m) & mask
    return (h ^ (h >> 15)) & 0x7FFFFFFF


def fact_partition(agency_id: str, kafka_partitions: int) -> int:
    """Return the Kafka partition of an agency's facts: 0 belongs to `_system` alone."""
    if agency_id == SYSTEM_AGENCY:
        return 0
    return 1 + murmur2(agency_id.encode()) % (kafka_partitions - 1)


def item_name(run: str, kind: ItemKind, number: int) -> str:
    """Return the name of a work item, `run_id/kind/number`."""
    return f"{run}/{kind}/{number}"


def manifest_uri(destination_uri: str, run: str, sha256: str) -> str:
    """Return where a run's manifest with this digest is, below the destination that the run was admitted with."""
    return f"{destination_uri.rstrip('/')}/{run}/manifest-{sha256}.json"
