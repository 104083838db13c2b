"""Records become events only when envelope and body keep their contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flux_client.events import answers, read_event
from flux_common.contracts.decisions import IntakeFlooded
from flux_common.contracts.runs import CommandApplied
from flux_common.kernel.errors import ValidationFailed
from flux_common.kernel.positions import Received, TopicPartition

Make = Callable[[int, str], Received]


def test_an_event_has_its_id_type_body_bytes_and_place(record: Make, applied: CommandApplied) -> None:
    """Nothing of the record is lost, and the document begins with type and id."""
    received = record(7, "e-1")
    event = read_event(received)

    assert (event.event_id, event.body, event.value, event.position) == (
        "e-1",
        applied,
        received.value,
        received.position,
    )
    assert list(event.document())[:3] == ["type", "event_id", "agency_id"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"headers": ()}, "HEADER_INVALID"),
        ({"value": None}, "VALUE_MISSING"),
        ({"value": b"{}"}, "SCHEMA_VIOLATION"),
        ({"headers": (("ce_id", b"e"), ("ce_type", b"flux.run.invented.v9"))}, "EVENT_TYPE_UNKNOWN"),
    ],
)
def test_what_breaks_the_contract_is_no_event(record: Make, changes: dict[str, Any], code: str) -> None:
    """Each fault has its code."""
    with pytest.raises(ValidationFailed) as refused:
        read_event(replace(record(0, "e-1"), **changes))

    assert refused.value.code == code


def test_a_decision_about_a_flood_answers_each_of_its_offsets() -> None:
    """Whoever waits for an answer finds it in the ranges, and only in those of its own Kafka partition."""
    place = {"topic": "flux.nasa.run.requests.v1", "kafka_partition": 1, "offset": 4}
    offsets = [{"first": 4, "last": 5}, {"first": 8, "last": 8}]
    body = IntakeFlooded.model_validate(
        {"agency_id": "nasa", "code": "INTAKE_FLOODED", "message": "m", "position": place, "offsets": offsets}
        | {"count": 3, "codes": {"TOKEN_MISSING": 3}}
    )
    there, elsewhere = (TopicPartition("flux.nasa.run.requests.v1", number) for number in (1, 2))

    assert [offset for offset in range(10) if answers(body, there.at(offset))] == [4, 5, 8]
    assert not answers(body, elsewhere.at(4))
