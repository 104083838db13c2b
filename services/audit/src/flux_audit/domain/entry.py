"""The bytes that a leaf is made of: one fact, written in the one way that RFC 8785 (JCS) allows.

Theory. An entry is `{v, agency_id, seq, ts, type, outcome, code?, actor?, src, subject_sha256, refs}`. `seq` is the
leaf's index, so that whoever holds the entries alone sees a deletion, an insertion or a reorder. `refs.fact_id` is the
event id of the fact; where the fact speaks of a decision or a terminal event, `refs.event_id` names that event, and so
a receipt for the event is bound to its leaf.
Only ASCII names, strings, integers below 2^53 and lists or objects of these are written: for them RFC 8785 is what
`json.dumps` writes with sorted names and no spaces (the tests hold it against a JCS library). No float, null or boolean
ever needs an opinion. The bytes are hashed and stored as they are; nobody encodes an entry a second time.
Failure. A fact that does not fit is refused here (`EntryRefused`) and sealed as type `unreadable` (sealing.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

ENTRY_VERSION: Final = 1
ENTRY_BYTES_MAX: Final = 64 * 1024
INTEGER_MAX: Final = 2**53 - 1
DEPTH_MAX: Final = 8

_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/@-]{0,255}")
_TIMESTAMP: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


class EntryRefused(ValueError):
    """A fact cannot be written as an entry: it must be sealed as unreadable instead."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What a service says that it decided.

    `ts` is RFC 3339 in UTC with milliseconds; `src` says where (service, topic, kafka_partition, offset), `actor` who,
    `subject_sha256` (64 lower-case hexadecimal digits) what it speaks of, `refs` the ids to follow. `code` and `actor`
    are None where the fact has none. `receipt` says that somebody waits for the proof of it.
    """

    fact_id: str
    agency_id: str
    ts: str
    type: str
    outcome: str
    src: Mapping[str, Any]
    subject_sha256: str
    refs: Mapping[str, Any]
    code: str | None = None
    actor: Mapping[str, Any] | None = None
    receipt: bool = False

    @property
    def event_id(self) -> str:
        """Return the id of the event that a receipt of this fact is about: the one it names, else its own."""
        named = self.refs.get("event_id", self.fact_id)
        return named if isinstance(named, str) else self.fact_id


def entry_bytes(fact: Fact, seq: int) -> bytes:
    """Return the entry of `fact` as leaf `seq`. Raises `EntryRefused` with what does not fit, never with a value."""
    _check_form(fact)
    entry: dict[str, Any] = {
        "v": ENTRY_VERSION,
        "agency_id": fact.agency_id,
        "seq": seq,
        "ts": fact.ts,
        "type": fact.type,
        "outcome": fact.outcome,
        "src": fact.src,
        "subject_sha256": fact.subject_sha256,
        "refs": {**fact.refs, "fact_id": fact.fact_id},
    }
    if fact.code is not None:
        entry["code"] = fact.code
    if fact.actor is not None:
        entry["actor"] = fact.actor
    return canonical_bytes(entry)


def canonical_bytes(value: Mapping[str, Any]) -> bytes:
    """Return the RFC 8785 bytes of an object of strings, integers, lists and objects. Raises `EntryRefused`."""
    _check_value(value, DEPTH_MAX)
    try:
        encoded = _ENCODER.encode(value).encode()
    except UnicodeEncodeError:
        raise EntryRefused("a string holds a lone surrogate") from None
    if len(encoded) > ENTRY_BYTES_MAX:
        raise EntryRefused(f"the entry is larger than {ENTRY_BYTES_MAX} bytes")
    return encoded


def _check_form(fact: Fact) -> None:
    words = [fact.type, fact.outcome, *([fact.code] if fact.code is not None else [])]
    if any(not _matches(_WORD, word) for word in words):
        raise EntryRefused("type, outcome or code is not a word of the contract")
    if not _matches(_TIMESTAMP, fact.ts):
        raise EntryRefused("ts is not RFC 3339 in UTC with milliseconds")
    if not _matches(_SHA256, fact.subject_sha256):
        raise EntryRefused("subject_sha256 is not 64 lower-case hexadecimal digits")


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _check_value(value: object, depth: int) -> None:
    """Refuse whatever RFC 8785 and `json.dumps` might write differently, or a reader might read differently."""
    if type(value) is str or (type(value) is int and abs(value) <= INTEGER_MAX):
        return
    if not isinstance(value, dict | list):
        raise EntryRefused(f"a {type(value).__name__} is neither string, integer below 2^53, list nor object")
    if depth == 0:
        raise EntryRefused(f"the entry nests deeper than {DEPTH_MAX} levels")
    if isinstance(value, dict) and not all(type(name) is str and name.isascii() for name in value):
        raise EntryRefused("a name is not an ASCII string")
    for child in value.values() if isinstance(value, dict) else value:
        _check_value(child, depth - 1)
