"""What an agency may ask for, once the request can be read: the first objection, in one fixed order.

| # | what must hold | else |
|---|---|---|
| 1 | an agency that the body names is the token's | AGENCY_MISMATCH |
| 2 | a record key, if there is one, is the request id | KEY_MISMATCH |
| 3 | the use case is offered | USE_CASE_NOT_AVAILABLE |
| 4 | source and destination lie inside the agency's prefixes | SOURCE_NOT_ALLOWED |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from flux_common.kernel.codes import Code

# The contract names what is planned; what runs today stands here.
USE_CASES_OFFERED: Final = frozenset({"research"})


@dataclass(frozen=True, slots=True)
class Wish:
    """What a readable body asks for. A command has no use case and no places: they stay at their defaults."""

    agency_named: str | None
    record_key: bytes | None
    request_id: str
    use_case: str | None = None
    source_allowed: bool = True
    destination_allowed: bool = True


def objection(wish: Wish, agency_id: str) -> Code | None:
    """Return why `agency_id` may not have this; None if it may."""
    if wish.agency_named is not None and wish.agency_named != agency_id:
        return Code.AGENCY_MISMATCH
    if wish.record_key is not None and wish.record_key != wish.request_id.encode():
        return Code.KEY_MISMATCH
    if wish.use_case is not None and wish.use_case not in USE_CASES_OFFERED:
        return Code.USE_CASE_NOT_AVAILABLE
    if not (wish.source_allowed and wish.destination_allowed):
        return Code.SOURCE_NOT_ALLOWED
    return None
