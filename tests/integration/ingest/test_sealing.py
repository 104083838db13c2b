"""A live ingest and the seal: who requires audit waits for it, the neighbour does not, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flux_client.development import DevelopmentAgency, write_development_registry
from flux_common.auth import load_trust
from flux_common.contracts.catalogue import AUDIT, LANE_WATERMARK, TREE_HEADS
from flux_common.contracts.envelope import Outgoing, body_bytes, headers_for
from flux_common.contracts.facts import LaneWatermark
from flux_common.kafka.publisher import IdempotentPublisher
from flux_common.kernel.clock import rfc3339
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import InvalidMessage, Overloaded
from flux_common.kernel.ids import fact_partition
from flux_common.settings import KafkaSettings
from flux_devkit.oracle import examine_async
from flux_devkit.plugin import ROLE_PASSWORD, PostgresServer
from flux_devkit.proofs.edge import Edge, Place, edge
from flux_devkit.proofs.forging import COMMAND_TYPE, HOST, NEIGHBOUR, Forger
from flux_devkit.servers import Servers

STRICT = replace(HOST, audit_required=True)
ACCEPTED = ("flux.run.accepted.v1", None)
WAITS, GOES_ON = '"requests wait for the seal"', '"requests wait for the seal no more"'


async def seal(kafka: KafkaSettings, seconds_ago: float, agency_id: str = STRICT.agency_id) -> None:
    """Say, as audit does, that an agency's lane is sealed up to then."""
    lane, at = fact_partition(agency_id, AUDIT.kafka_partitions), datetime.now(UTC) - timedelta(seconds=seconds_ago)
    body = body_bytes(LaneWatermark(kafka_partition=lane, next_offset=0, watermark=rfc3339(at)))
    headers = headers_for(LANE_WATERMARK, event_id="w", source="flux/audit", at=at)
    publisher = IdempotentPublisher(kafka)
    try:
        await publisher.send([Outgoing(TREE_HEADS.name, f"_lane/{lane}", "w", headers, body, "_system")])
    finally:
        await publisher.close()


async def held(running: Edge) -> None:
    """Wait until ingest has said that requests wait."""
    async with asyncio.timeout(60):
        while WAITS not in running.service.log.read_text():  # noqa: ASYNC110 - a line of a log has no event
            await asyncio.sleep(0.1)


async def asked(running: Edge, forger: Forger, kafka_partition: int) -> list[Place]:
    """Send, to one Kafka partition, a request, a command, what must be refused and what cannot be read."""
    records = (
        forger.good(),
        forger.record(forger.command(), headers={"ce_type": COMMAND_TYPE}),
        forger.record(forger.body(use_case="vr")),
        forger.record(forger.body(), headers={"ce_type": b"flux.unheard-of.v1"}),
    )
    return [await running.send(forger.agency.agency_id, one, kafka_partition=kafka_partition) for one in records]


ANSWERS = [
    [ACCEPTED],
    [("flux.run.command-accepted.v1", None)],
    [("flux.run.rejected.v1", "USE_CASE_NOT_AVAILABLE")],
    [("flux.record.dead-lettered.v1", "EVENT_TYPE_UNKNOWN")],
]


async def test_who_requires_audit_is_decided_once_it_is_sealed_and_others_meanwhile(
    kafka_bootstrap: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """No watermark, then one of an hour ago: all lanes of the agency wait. A fresh one: each record has its one answer."""
    servers = Servers(kafka_bootstrap, postgres_server.dsn)
    async with edge(servers, tmp_path, [STRICT, NEIGHBOUR], role_password=ROLE_PASSWORD) as running:
        kafka, keys = running.installation.kafka(), running.installation.keys
        strict, free = Forger(keys, STRICT, NEIGHBOUR), Forger(keys, NEIGHBOUR, STRICT)
        waiting = await asked(running, strict, 0)
        await held(running)
        await seal(kafka, 3600)
        waiting += await asked(running, strict, 1)
        others = await asked(running, free, 0)
        await running.answered(others, 60)
        early, ready = [place for place in waiting if place in running.answers], running.service.ready()
        await seal(kafka, 1)
        await running.answered(waiting, 90)
        report = await examine_async(running.installation, services=frozenset({"ingest"}), quiescent=True)
        log = running.service.log.read_text()

    assert (early, ready) == ([], True)
    assert [running.said(place) for place in others] == ANSWERS
    assert [running.said(place) for place in waiting] == ANSWERS * 2
    assert (log.count(WAITS), log.count(GOES_ON)) == (1, 1)
    report.assert_clean()


async def test_what_cannot_be_read_waits_too_and_a_wait_leaves_nothing_behind(bench: Any, hand: Any) -> None:
    """Neither a decision nor a dead letter is made past the seal; the same batches are applied once it keeps up."""
    registry = write_development_registry(hand.keys, [DevelopmentAgency("nasa", "NASA", audit_required=True)])
    bench.trust = load_trust(registry, datetime.now(UTC))
    good, broken = await bench.batch((hand.body(), hand.headers())), await bench.batch((b"", []), kp=1)
    unreadable = InvalidMessage(Code.TOO_LARGE, "It unfolds without bound")
    for waiting in (bench.handler.apply(good), bench.handler.refuse(broken, unreadable)):
        with pytest.raises(Overloaded):
            await waiting
    before = await bench.told(), await bench.rows("SELECT 1 FROM ledger")
    bench.seals.hear(fact_partition("nasa", AUDIT.kafka_partitions), datetime.now(UTC))
    await bench.handler.apply(good)
    await bench.handler.refuse(broken, unreadable)

    assert before == ([], [])
    told = [kind for kind, _, _ in await bench.told()]
    assert (told.count("run.accepted"), told.count("record.dead-lettered")) == (1, 1)
