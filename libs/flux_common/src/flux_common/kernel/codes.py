"""Every code that Flux says to anyone, each with one line; docs/error-codes.md is made from this."""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """A stable name for one thing that can be refused or go wrong."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Code:
        """Keep the meaning beside the value."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    # Reading a record.
    VALUE_MISSING = "VALUE_MISSING", "The record has no value."
    TOO_LARGE = "TOO_LARGE", "The value is larger than 256 KiB."
    NOT_UTF8 = "NOT_UTF8", "The value, or a header that must be text, is not strict UTF-8."
    HEADER_INVALID = "HEADER_INVALID", "A header is missing, repeated, oversized or not of its form."
    EVENT_TYPE_UNKNOWN = "EVENT_TYPE_UNKNOWN", "The record's ce_type is not one that this topic carries."
    JSON_INVALID = "JSON_INVALID", "The value is not strict JSON (duplicate names, NaN and unsafe numbers are refused)."
    JSON_TOO_DEEP = "JSON_TOO_DEEP", "The JSON nests deeper than 64 levels or has too many tokens."
    SCHEMA_VIOLATION = "SCHEMA_VIOLATION", "The value breaks its JSON Schema; the pointers name where."
    KEY_MISMATCH = "KEY_MISMATCH", "The record's key is not the id that its value names."
    TIMESTAMP_NOT_BROKERS = "TIMESTAMP_NOT_BROKERS", "The topic does not stamp LogAppendTime, so arrival is not proven."
    # Who asks.
    TOKEN_MISSING = "TOKEN_MISSING", "No authorization header with a Bearer token."
    TOKEN_MALFORMED = "TOKEN_MALFORMED", "The token is not three base64url parts of at most 8 KiB."
    TOKEN_HEADER_REFUSED = "TOKEN_HEADER_REFUSED", "The token's header has parameters beside alg, kid and typ."
    ISSUER_UNKNOWN = "ISSUER_UNKNOWN", "The token's issuer is not registered for any agency."
    KEY_UNKNOWN = "KEY_UNKNOWN", "The issuer has no key of this kid."
    KEY_RETIRED = "KEY_RETIRED", "The record arrived after the retirement of the key that signed its token."
    ALGORITHM_REFUSED = "ALGORITHM_REFUSED", "The algorithm is not the key's own, or not allowed for the issuer."
    SIGNATURE_INVALID = "SIGNATURE_INVALID", "The token's signature does not verify."
    CLAIM_INVALID = "CLAIM_INVALID", "A claim is missing or not of its type."
    AUDIENCE_MISMATCH = "AUDIENCE_MISMATCH", "The token is meant for another audience."
    TOKEN_LIFE_TOO_LONG = "TOKEN_LIFE_TOO_LONG", "The token lives longer than its role may."
    TOKEN_EXPIRED = "TOKEN_EXPIRED", "The token had expired when the record reached the broker."
    TOKEN_NOT_YET_VALID = "TOKEN_NOT_YET_VALID", "The token was not yet valid when the record reached the broker."
    TOKEN_EXPIRED_IN_QUEUE = "TOKEN_EXPIRED_IN_QUEUE", "The command's token expired before Flux could judge it."
    TOKEN_REPLAYED = "TOKEN_REPLAYED", "The token was already used for another request."
    BINDING_REQUIRED = "BINDING_REQUIRED", "The agency requires tokens bound to the request."
    BINDING_MISMATCH = "BINDING_MISMATCH", "The token or proof is bound to another request."
    KEYS_STALE = "KEYS_STALE", "The issuer's keys are older than they may be; nothing is accepted on them."
    AGENCY_MISMATCH = "AGENCY_MISMATCH", "The agency of the topic, the token and the payload are not the same."
    AGENCY_NOT_FOUND = "AGENCY_NOT_FOUND", "The agency is not registered."
    AGENCY_SUSPENDED = "AGENCY_SUSPENDED", "The agency is suspended: no new requests."
    ROLE_FORBIDDEN = "ROLE_FORBIDDEN", "The token's role may not do this."
    # What is asked.
    REQUEST_CONFLICT = "REQUEST_CONFLICT", "The request id is taken by another accepted body."
    COMMAND_CONFLICT = "COMMAND_CONFLICT", "The command id is taken by another accepted command."
    USE_CASE_NOT_AVAILABLE = "USE_CASE_NOT_AVAILABLE", "Flux does not offer this use case yet."
    SOURCE_NOT_ALLOWED = "SOURCE_NOT_ALLOWED", "The source or destination is outside what the agency may use."
    RUN_UNKNOWN = "RUN_UNKNOWN", "No run of this request id."
    RUN_STATE = "RUN_STATE", "The command changes nothing in the run's present state."
    INTAKE_FLOODED = "INTAKE_FLOODED", "Too many refusals a minute: this one decision stands for a range of offsets."
    # Work on a run.
    SOURCE_EMPTY = "SOURCE_EMPTY", "No object of the source matches the request."
    SOURCE_MISSING = "SOURCE_MISSING", "The source cannot be found."
    SOURCE_CHANGED = "SOURCE_CHANGED", "The object changed after it was planned."
    SOURCE_UNAVAILABLE = "SOURCE_UNAVAILABLE", "The source did not answer; the item is tried again."
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE", "The destination did not answer; the item is tried again."
    PLAN_TOO_LARGE = "PLAN_TOO_LARGE", "The source makes more partitions than one run may have."
    PLAN_MISMATCH = "PLAN_MISMATCH", "The stored plan is not the one whose digest the run carries."
    CHAIN_BROKEN = "CHAIN_BROKEN", "A report does not continue the partition's record chain."
    CHAIN_CORRUPT = "CHAIN_CORRUPT", "The stored record chain does not have the digests it should have."
    RECORD_INVALID = "RECORD_INVALID", "A slice record is not canonical, or contradicts its headers."
    COUNTS_MISMATCH = "COUNTS_MISMATCH", "The counts of the partitions do not add up to the plan."
    REJECTS_EXCEEDED = "REJECTS_EXCEEDED", "More objects were rejected than the request allows."
    ATTEMPTS_EXHAUSTED = "ATTEMPTS_EXHAUSTED", "An item failed as often as it may."
    VERSION_MISMATCH = "VERSION_MISMATCH", "The worker is of another transform version than the item."
    WORK_UNREADABLE = "WORK_UNREADABLE", "A worker could not read its work item."
    STALLED = "STALLED", "The item's worker fell silent."
    QUEUED_TOO_LONG = "QUEUED_TOO_LONG", "The item lay in the queue longer than it may; it was dispatched anew."
    DROPPED = "DROPPED", "The worker dropped the item because it was fenced."
    WORKER_FAILED = "WORKER_FAILED", "A worker met an error that it does not know."
    RUN_TTL_EXCEEDED = "RUN_TTL_EXCEEDED", "The run did not end within its time to live."
    TERM_UNKNOWN = "TERM_UNKNOWN", "A report names a term that was never dispatched."
    # Objects that are rejected inside a run.
    OBJECT_CORRUPT = "OBJECT_CORRUPT", "The object cannot be decoded."
    OBJECT_TOO_LARGE = "OBJECT_TOO_LARGE", "The object, or what it unfolds to, is larger than the limit."
    OBJECT_ENCRYPTED = "OBJECT_ENCRYPTED", "The object is encrypted."
    OBJECT_UNSUPPORTED = "OBJECT_UNSUPPORTED", "The object's format is not one that this content type reads."
    OBJECT_EMPTY = "OBJECT_EMPTY", "The object has no content."
    OBJECT_TIMED_OUT = "OBJECT_TIMED_OUT", "Decoding the object took longer than the limit."
    OBJECT_KILLED_WORKER = "OBJECT_KILLED_WORKER", "Decoding the object ended the worker process."
    TEXT_UNDECODABLE = "TEXT_UNDECODABLE", "The object's encoding cannot be told, or it decodes to control characters."
    # The machinery.
    LANE_DATA_LOST = "LANE_DATA_LOST", "The lane's next offset is outside the log: records were lost unread."
    TOPIC_EXCHANGED = "TOPIC_EXCHANGED", "The topic was deleted and created again under the same name."
    LANE_FENCED = "LANE_FENCED", "Another process owns the lane now."
    LEASE_LOST = "LEASE_LOST", "Another process holds the lease now."
    CURSOR_LOST = "CURSOR_LOST", "The relay's cursor topic is behind the database: its records were lost."
    DATABASE_BEHIND_KAFKA = "DATABASE_BEHIND_KAFKA", "Kafka remembers more than the database: a backup was restored."
    FORK = "FORK", "A tree head was signed for other contents than the database holds."
    ISOLATION_VIOLATION = "ISOLATION_VIOLATION", "The database refused access to rows of another agency."
    DATABASE_UNAVAILABLE = "DATABASE_UNAVAILABLE", "PostgreSQL does not answer."
    BROKER_UNAVAILABLE = "BROKER_UNAVAILABLE", "Kafka does not answer."
    RECORD_REFUSED = "RECORD_REFUSED", "The database refused the record's values."
    OUTBOX_FULL = "OUTBOX_FULL", "So many events wait for the relay that lanes wait, too, and go on by themselves."
    SEAL_LAGGING = "SEAL_LAGGING", "The agency requires audit, and the seal of its facts is too far behind."
    SCHEMA_OUTDATED = "SCHEMA_OUTDATED", "The database schema is older than this service needs."
    TOPIC_MISSING = "TOPIC_MISSING", "A topic that the catalogue names does not exist."
    SETTINGS_INVALID = "SETTINGS_INVALID", "A setting is missing or wrong."
    INVARIANT_BROKEN = "INVARIANT_BROKEN", "Flux's own records contradict themselves."


def meaning_of(code: str) -> str:
    """Return the one line that explains a code; a plain sentence for a code that is not ours."""
    member = Code.__members__.get(code)
    return member.meaning if member is not None else "The code is not one of Flux's."
