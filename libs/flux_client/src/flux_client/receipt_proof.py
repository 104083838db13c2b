"""What a receipt proves about an event that somebody holds.

The verifier proves that an entry is sealed in the agency's log and speaks of that event's id. What is left is that the
entry speaks of *these bytes*: its `subject_sha256` must be the digest of the event's value as it was received.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flux_client.verifier import Failure, Trust, VerificationFailed, verify_receipt


@dataclass(frozen=True, slots=True)
class ProvenReceipt:
    """A receipt that was verified: its leaf, the size of the tree it is in, and the sealed entry."""

    leaf_index: int
    tree_size: int
    entry: Mapping[str, Any]


def prove_event(event_id: str, value: bytes, sealed: Mapping[str, Any], trust: Trust) -> ProvenReceipt:
    """Prove that the receipt `sealed` attests the event `event_id` with exactly these bytes.

    Raises:
        VerificationFailed: it does not; `failure` says in which way.
    """
    entry = verify_receipt(sealed, trust)
    if sealed.get("event_id") != event_id:
        raise VerificationFailed(Failure.INCLUSION, "the receipt is about another event")
    if entry.get("subject_sha256") != hashlib.sha256(value).hexdigest():
        raise VerificationFailed(Failure.INCLUSION, "the sealed entry speaks of other bytes than the event's")
    return ProvenReceipt(sealed["leaf_index"], sealed["tree_size"], entry)
