"""What the client raises, in the classes of the failure table."""

from __future__ import annotations

import pytest
from aiokafka import errors as broker

from flux_common.kafka.errors import PublishRefused, final_refusal, unavailable
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Unavailable


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (broker.TopicAuthorizationFailedError(), Code.TOPIC_MISSING),
        (broker.UnknownTopicOrPartitionError(), Code.TOPIC_MISSING),
        (broker.MessageSizeTooLargeError(), Code.TOO_LARGE),
        (broker.InvalidTimestampError(), Code.RECORD_REFUSED),
    ],
)
def test_some_errors_are_final_for_an_event(problem: Exception, code: Code) -> None:
    """They have a code of ours."""
    refusal = final_refusal(problem)

    assert refusal is not None
    assert refusal[0] == code


@pytest.mark.parametrize(
    "problem", [broker.KafkaTimeoutError(), broker.OutOfOrderSequenceNumber(), broker.NotEnoughReplicasError()]
)
def test_all_others_are_outages(problem: Exception) -> None:
    """Try again."""
    outage = unavailable(problem, "publish")

    assert final_refusal(problem) is None
    assert (type(outage), outage.code, outage.__cause__) == (Unavailable, Code.BROKER_UNAVAILABLE, problem)


def test_a_refusal_is_an_outage_for_whoever_cannot_set_it_aside() -> None:
    """PublishRefused is an Unavailable that names its event."""
    refused = PublishRefused(3, Code.TOO_LARGE, "too large")

    assert isinstance(refused, Unavailable)
    assert refused.index == 3
