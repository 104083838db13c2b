"""From the client's record to `Received`."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from flux_common.kafka.records import received, unreadable
from flux_common.kafka.wire import Record, Unreadable
from flux_common.kernel.positions import Received, TopicPartition

TP = TopicPartition("t", 1)


def test_carries_over_what_the_broker_said() -> None:
    """Position, key, value and headers; the time only where it is the broker's."""
    made = received(TP, [
        Record(4, 1_700_000_000_123, 1, b"k", None, [("h", b"x")]),
        Record(5, 1_700_000_000_123, 1, None, b"v", []),
        Record(6, 1_700_000_000_123, 0, None, b"v", []),
        Record(7, 1_700_000_000_124, 1, None, b"v", []),
    ])  # fmt: skip
    stamp = datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)

    assert [record.position.offset for record in made] == [4, 5, 6, 7]
    assert (made[0].key, made[0].value, list(made[0].headers)) == (b"k", None, [("h", b"x")])
    assert [record.appended_at for record in made] == [stamp, stamp, None, stamp.replace(microsecond=124000)]


def test_only_the_readers_own_mark_is_a_mark() -> None:
    """A producer's header of the same text is a header."""
    forged = Received(TP.at(1), None, b"v", (("TOO_LARGE", None),))
    marked = Received(TP.at(1), None, None, ((Unreadable("TOO_LARGE"), None),))
    problem = unreadable(marked)

    assert unreadable(forged) is None
    assert forged.sha256 == hashlib.sha256(b"v").hexdigest()
    assert problem is not None
    assert problem.code == "TOO_LARGE"


def test_the_digest_of_a_value_that_was_not_kept_is_the_records() -> None:
    """The reader's mark carries it; a producer's own header of the same text does not."""
    digest = hashlib.sha256(b"too large").digest()
    marked, unknown, forged = received(TP, [
        Record(1, 0, 1, None, None, [(Unreadable("TOO_LARGE"), digest)]),
        Record(2, 0, 1, None, None, [(Unreadable("TOO_LARGE"), None)]),
        Record(3, 0, 1, None, None, [("TOO_LARGE", digest)]),
    ])  # fmt: skip
    nothing = hashlib.sha256(b"").hexdigest()

    assert [record.sha256 for record in (marked, unknown, forged)] == [digest.hex(), nothing, nothing]
