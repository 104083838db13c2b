"""What ingest takes from the topic of tree heads: watermarks of lanes, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from structlog.testing import capture_logs

from flux_common.contracts.catalogue import AUDIT, LANE_WATERMARK, TREE_HEAD_SIGNED, TREE_HEADS, EventSpec
from flux_common.contracts.envelope import body_bytes, headers_for
from flux_common.contracts.facts import LaneWatermark, TreeHeadSigned
from flux_common.contracts.types import Event
from flux_common.kernel.clock import rfc3339
from flux_common.kernel.ids import fact_partition
from flux_common.kernel.positions import Received, TopicPartition
from flux_common.observability import metrics
from flux_ingest.adapters.watermarks import HeardWatermarks
from flux_ingest.domain.seals import Seals

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LANE = fact_partition("nasa", AUDIT.kafka_partitions)
PLACE = TopicPartition(TREE_HEADS.name, 0)
HEAD = TreeHeadSigned(agency_id="nasa", size=1, root="0" * 64, tree_head="…")


def a_record(offset: int, spec: EventSpec, value: bytes | None) -> Received:
    """Return a record as audit's relay writes it."""
    headers = headers_for(spec, event_id=f"e-{offset}", source="flux/audit", at=NOW)
    return Received(PLACE.at(offset), b"key", value, tuple(headers), None)


def a_watermark(seconds_ago: float) -> Event:
    """Return what audit says of NASA's lane."""
    at = rfc3339(NOW - timedelta(seconds=seconds_ago))
    return LaneWatermark(kafka_partition=LANE, next_offset=7, watermark=at)


def test_watermarks_are_taken_in_among_tree_heads() -> None:
    """The topic has both; the last watermark counts, and the metric shows it."""
    seals = Seals(AUDIT.kafka_partitions)
    with capture_logs() as lines:
        HeardWatermarks(seals).hear(
            [
                a_record(0, LANE_WATERMARK, body_bytes(a_watermark(9))),
                a_record(1, LANE_WATERMARK, body_bytes(a_watermark(4))),
                a_record(2, TREE_HEAD_SIGNED, body_bytes(HEAD)),
            ]
        )

    assert seals.lag("nasa", NOW) == timedelta(seconds=4)
    assert metrics.seal_watermark.labels(str(LANE))._value.get() == NOW.timestamp() - 4
    assert lines == []


def test_what_cannot_be_read_is_logged_and_leaves_the_word_as_it_was() -> None:
    """No value, no JSON, no envelope: an error each, and what follows is heard."""
    seals = Seals(AUDIT.kafka_partitions)
    with capture_logs() as lines:
        HeardWatermarks(seals).hear(
            [
                a_record(0, LANE_WATERMARK, body_bytes(a_watermark(9))),
                a_record(1, LANE_WATERMARK, None),
                a_record(2, LANE_WATERMARK, b"\xff"),
                Received(PLACE.at(3), None, b"{}", (), None),
            ]
        )
        lag = seals.lag("nasa", NOW)
        HeardWatermarks(seals).hear([a_record(4, LANE_WATERMARK, body_bytes(a_watermark(1)))])

    assert [line["code"] for line in lines] == ["VALUE_MISSING", "SCHEMA_VIOLATION", "HEADER_INVALID"]
    assert (lag, seals.lag("nasa", NOW)) == (timedelta(seconds=9), timedelta(seconds=1))
