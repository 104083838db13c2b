"""Who may ask for what: one table, and whatever it does not name is forbidden."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from flux_common.auth.identity import Role, Verified
from flux_common.auth.refusal import NotPermitted
from flux_common.auth.registry import Registry
from flux_common.kernel.codes import Code


class Ask(StrEnum):
    """What a record on a requests topic can ask for; commands by their own names."""

    REQUEST = "request"
    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"


PERMITTED: Final[Mapping[Role, frozenset[Ask]]] = {
    Role.ADMIN: frozenset(Ask),
    Role.OPERATOR: frozenset({Ask.REQUEST, Ask.CANCEL, Ask.PAUSE, Ask.RESUME, Ask.RETRY}),
}


def authorize(verified: Verified, ask: Ask, registry: Registry) -> None:
    """Return if the bearer may `ask`; raise `NotPermitted` if its role or its agency's suspension forbids it."""
    if ask not in PERMITTED.get(verified.role, frozenset()):
        raise NotPermitted(Code.ROLE_FORBIDDEN, verified.actor)
    agency = registry.agency(verified.agency_id)
    if agency is None:
        raise NotPermitted(Code.AGENCY_NOT_FOUND, verified.actor)
    if agency.suspended:
        raise NotPermitted(Code.AGENCY_SUSPENDED, verified.actor)
