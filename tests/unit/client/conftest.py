"""A record of the completions topic, as the broker hands it over."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flux_common.contracts import catalogue
from flux_common.contracts.envelope import body_bytes, headers_for
from flux_common.contracts.runs import CommandApplied
from flux_common.kernel.clock import from_millis
from flux_common.kernel.positions import Received, TopicPartition

RUN = "6f9a3c52-9d0b-5c7e-8a41-d3f1c0de0002"
TP = TopicPartition("flux.nasa.run.completions.v1", 0)


@pytest.fixture
def applied() -> CommandApplied:
    """The body of an event."""
    return CommandApplied(
        agency_id="nasa", request_id="r-1", run_id=RUN, command_id="c-1", command="cancel", state="CANCELLING"
    )


@pytest.fixture
def record(applied: CommandApplied) -> Callable[[int, str], Received]:
    """Makes the record of that event at an offset, under a `ce_id`."""

    def make(offset: int, event_id: str) -> Received:
        headers = headers_for(catalogue.COMMAND_APPLIED, event_id=event_id, source="flux/checkpoint", at=from_millis(0))
        return Received(TP.at(offset), RUN.encode(), body_bytes(applied), tuple(headers))

    return make
