"""Facts for the audit log, and the receipts that come back.

No payload, no free text of strangers, no token: ids, codes, positions and digests only.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from flux_common.contracts.types import (
    AgencyId,
    CodeText,
    Count,
    Digest,
    Event,
    FactAgencyId,
    One,
    Positive,
    SafeInteger,
    Timestamp,
    Uuid,
)

Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-][A-Za-z0-9 ._:/@-]{0,255}$")]
RefName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class Actor(Event):
    """Who asked: the verified token's names; the token id only as a digest."""

    iss: Annotated[str, StringConstraints(max_length=512)]
    sub: Annotated[str, StringConstraints(max_length=256)]
    role: Word
    kid: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~-]{1,128}$")]
    jti_sha256: Digest
    binding: Literal["claim", "proof", "none"]


class FactSource(Event):
    """Where the deciding service stood: the record it judged, or nothing where it derived the fact from state."""

    service: Word
    topic: Annotated[str, StringConstraints(max_length=249)] | None = None
    kafka_partition: Count | None = None
    offset: Count | None = None


class AuditFact(Event):
    """`flux.audit.fact.v1`: this happened.

    `refs` names what to follow: run_id, request_id, event_id, kind, number, term, count, …
    `receipt` asks for a receipt on the agency's receipts topic; `refs.event_id` is then the attested event's `ce_id`
    and `subject_sha256` the digest of its value.
    """

    v: One
    agency_id: FactAgencyId
    ts: Timestamp
    type: Word
    outcome: Literal["ok", "refused", "failed"]
    code: CodeText | None = None
    actor: Actor | None = None
    src: FactSource
    subject_sha256: Digest
    refs: Annotated[dict[RefName, Word | SafeInteger], Field(max_length=32)] = Field(default_factory=dict)
    receipt: bool = False


class AuditSealed(Event):
    """`flux.audit.sealed.v1`: the receipt of a decision or a terminal event.

    `entry` is base64 of the sealed entry's bytes; its leaf `leaf_index` is included, by `inclusion_proof` (base64
    hashes, lowest first), in the tree of `tree_size` leaves whose head `tree_head` (a signed note) states.
    """

    agency_id: AgencyId
    event_id: Uuid
    entry: Annotated[str, StringConstraints(max_length=90_000)]
    leaf_index: Count
    tree_size: Positive
    inclusion_proof: Annotated[list[Annotated[str, StringConstraints(max_length=44)]], Field(max_length=64)]
    tree_head: Annotated[str, StringConstraints(max_length=4096)]


class TreeHeadSigned(Event):
    """`flux.audit.tree-head-signed.v1`: the signer's memory: the last head of an agency's log."""

    agency_id: FactAgencyId
    size: Count
    root: Digest
    tree_head: Annotated[str, StringConstraints(max_length=4096)]


class LaneWatermark(Event):
    """`flux.audit.lane-watermark.v1`: how far the audit lane has read, from which others learn the seal lag."""

    kafka_partition: Count
    next_offset: Count
    watermark: Timestamp


class RelayCursor(Event):
    """`flux.relay.cursor.v1`: the number of the last outbox row that a relay's transaction published."""

    cursor: Count
