"""A receipt proves one event with exactly its bytes, and nothing else."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flux_audit.adapters.signer import TreeHeadSigner
from flux_audit.domain.entry import Fact, entry_bytes
from flux_audit.domain.merkle import Frontier, append, frontier_of, inclusion_plan, leaf_hash
from flux_audit.domain.tree_head import TreeHead, log_origin
from flux_client.receipt_proof import prove_event
from flux_client.verifier import Failure, Trust, VerificationFailed

SIGNER = TreeHeadSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
ORIGIN = log_origin("flux.example", "nasa")
TRUST = Trust([SIGNER.verifier_key(ORIGIN)], "nasa")
VALUE = b'{"run_id":"r"}'


def receipt(event_id: str = "event-1", value: bytes = VALUE) -> dict[str, Any]:
    """Return the receipt of an event in a log of three leaves, as the audit service's domain makes it."""
    digest = hashlib.sha256(value).hexdigest()
    facts = [
        Fact(f"fact-{n}", "nasa", "2026-11-24T10:00:00.125Z", "run.completed", "ok", {"service": "checkpoint"}, digest,
             {"event_id": f"event-{n}"})
        for n in range(3)
    ]  # fmt: skip
    entries = [entry_bytes(fact, number) for number, fact in enumerate(facts)]
    stored = {node.at: node.hash for node in append(Frontier(), map(leaf_hash, entries)).nodes}
    index = next(n for n, fact in enumerate(facts) if fact.refs["event_id"] == event_id)
    return {
        "agency_id": "nasa",
        "event_id": event_id,
        "entry": base64.b64encode(entries[index]).decode(),
        "leaf_index": index,
        "tree_size": 3,
        "inclusion_proof": [base64.b64encode(one).decode() for one in inclusion_plan(index, 3).fold(stored)],
        "tree_head": SIGNER.sign(TreeHead(ORIGIN, 3, frontier_of(3, stored).root)),
    }


def test_a_receipt_proves_its_event() -> None:
    """The leaf, the tree's size and the entry come back."""
    proven = prove_event("event-1", VALUE, receipt(), TRUST)

    assert (proven.leaf_index, proven.tree_size, proven.entry["type"]) == (1, 3, "run.completed")


@pytest.mark.parametrize(
    ("event_id", "value", "failure"),
    [
        ("event-1", VALUE + b" ", Failure.INCLUSION),
        ("event-2", VALUE, Failure.INCLUSION),
    ],
)
def test_a_receipt_proves_no_other_event_and_no_other_bytes(event_id: str, value: bytes, failure: Failure) -> None:
    """Another id, or one byte more, is refused."""
    with pytest.raises(VerificationFailed) as refused:
        prove_event(event_id, value, receipt(), TRUST)

    assert refused.value.failure == failure


def test_a_receipt_of_another_agency_is_refused() -> None:
    """The verifier's own judgement is passed on."""
    with pytest.raises(VerificationFailed) as refused:
        prove_event("event-1", VALUE, receipt(), Trust(TRUST.keys, "esa"))

    assert refused.value.failure == Failure.TENANT
