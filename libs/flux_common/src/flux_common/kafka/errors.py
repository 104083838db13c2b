"""What the client libraries raise, said in the classes of the failure table.

An error of the broker or of the way to it is an outage (`Unavailable`): nothing was decided, try again. Only a few
errors say something final about one event (`PublishRefused`).
"""

from __future__ import annotations

from typing import Final

from aiokafka import errors as broker

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Unavailable


class PublishRefused(Unavailable):
    """The broker will never take the event at `index` of the call as it is: topic missing or forbidden, too large.

    For whoever has nothing to set aside it is an outage like any other; the relay parks the row.
    """

    def __init__(self, index: int, code: str, message: str) -> None:
        super().__init__(code, message)
        self.index = index


_FINAL: Final[dict[type[BaseException], tuple[Code, str]]] = {
    broker.TopicAuthorizationFailedError: (Code.TOPIC_MISSING, "The topic is forbidden to this principal"),
    broker.UnknownTopicOrPartitionError: (Code.TOPIC_MISSING, "The topic does not exist"),
    broker.InvalidTopicError: (Code.TOPIC_MISSING, "The broker does not allow a topic of this name"),
    broker.MessageSizeTooLargeError: (Code.TOO_LARGE, "The event is larger than its topic allows"),
    broker.RecordListTooLargeError: (Code.TOO_LARGE, "The event is larger than a segment of its topic"),
    broker.InvalidTimestampError: (Code.RECORD_REFUSED, "The event's time is outside what its topic allows"),
}


def final_refusal(problem: BaseException) -> tuple[Code, str] | None:
    """Return code and message if `problem` says that one event can never be written; None if it is an outage."""
    return next((said for kind, said in _FINAL.items() if isinstance(problem, kind)), None)


def unavailable(problem: BaseException, act: str) -> Unavailable:
    """Return the outage that `problem` is, met while doing `act`."""
    known = Unavailable(Code.BROKER_UNAVAILABLE, f"Kafka did not answer: {act} ({type(problem).__name__})")
    known.__cause__ = problem
    return known
