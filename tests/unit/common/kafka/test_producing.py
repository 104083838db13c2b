"""What failed sends mean."""

from __future__ import annotations

import pytest
from aiokafka import errors as broker

from flux_common.contracts.envelope import Outgoing
from flux_common.kafka.errors import PublishRefused
from flux_common.kafka.producing import RECORD_BYTES_MAX, judged, refuse_oversized, size_of
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Fenced, Unavailable


def event(size: int) -> Outgoing:
    """Return an event with a value of `size` bytes."""
    return Outgoing("t", "k", "id", [("name", b"12345")], b"x" * size, "nasa")


def test_the_largest_of_a_refused_batch_is_the_cause() -> None:
    """A batch fails whole, each of its sends with the same error; the event to set aside is the largest."""
    too_large = broker.MessageSizeTooLargeError()
    problem = judged([None, too_large, too_large, too_large], [event(900), event(1), event(500), event(2)])

    assert isinstance(problem, PublishRefused)
    assert (problem.index, problem.code) == (2, Code.TOO_LARGE)


def test_being_fenced_outweighs_everything() -> None:
    """Another owner explains every other failure."""
    problem = judged([broker.MessageSizeTooLargeError(), broker.ProducerFenced()], [event(1), event(1)])

    assert isinstance(problem, Fenced)


def test_anything_else_is_an_outage() -> None:
    """Also an assertion of the client."""
    assert type(judged([None, AssertionError("state")], [event(1), event(1)])) is Unavailable
    assert type(judged([broker.KafkaTimeoutError()], ())) is Unavailable


def test_the_first_oversized_event_is_refused() -> None:
    """Its index is told; events up to the limit pass."""
    limit = RECORD_BYTES_MAX - size_of(event(0))
    refuse_oversized([event(limit), event(10)])
    with pytest.raises(PublishRefused) as refused:
        refuse_oversized([event(10), event(limit + 1)])

    assert (refused.value.index, refused.value.code) == (1, Code.TOO_LARGE)
