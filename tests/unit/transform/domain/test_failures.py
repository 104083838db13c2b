"""Failures of items and rejects of objects."""

from __future__ import annotations

from flux_common.kernel.codes import Code
from flux_transform.domain.failures import NotStored, Rejected, WorkFailed, chain_corrupt, plan_mismatch


def test_failures_say_whose_fault_it_is_and_whether_to_try_again() -> None:
    """Code, cause and transience are what checkpoint decides on."""
    failures = [chain_corrupt("x"), plan_mismatch("x"), NotStored("records/x.json")]

    found = [(failure.code, failure.cause, failure.transient) for failure in failures]

    assert found == [
        (Code.CHAIN_CORRUPT, "transform", False),
        (Code.PLAN_MISMATCH, "transform", False),
        (Code.CHAIN_CORRUPT, "infrastructure", False),
    ]


def test_a_reject_is_no_failure_of_the_item() -> None:
    """Whoever catches failures does not catch rejects."""
    reject = Rejected(Code.OBJECT_EMPTY, "no bytes")

    assert not isinstance(reject, WorkFailed)
    assert (reject.code, reject.detail) == (Code.OBJECT_EMPTY, "no bytes")
