"""Who may ask for what."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from flux_common.auth import Ask, NotPermitted, Role, authorize
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Classification

if TYPE_CHECKING:
    from conftest import World

ALLOWED = {
    Role.ADMIN: {"request", "cancel", "pause", "resume", "retry"},
    Role.OPERATOR: {"request", "cancel", "pause", "resume", "retry"},
    Role.VIEWER: set[str](),
}


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("ask", list(Ask))
def test_the_table_is_the_design(world: World, role: Role, ask: Ask) -> None:
    """Every role with every ask, against a table of its own; what it does not name is forbidden."""
    verified = replace(world.verify(world.token()), role=role)
    if ask in ALLOWED[role]:
        authorize(verified, ask, world.registry)
        return

    with pytest.raises(NotPermitted) as refused:
        authorize(verified, ask, world.registry)
    assert (Code.ROLE_FORBIDDEN, Classification.AUTHORIZATION, verified.actor) == (
        refused.value.reason,
        refused.value.classification,
        refused.value.actor,
    )


def test_a_suspended_agency_asks_for_nothing(world: World) -> None:
    """Not even its admin, and not even a cancel: its runs go on."""
    suspended = world.with_agency("nasa", suspended=True)
    verified = replace(suspended.verify(suspended.token()), role=Role.ADMIN)

    for ask in Ask:
        with pytest.raises(NotPermitted) as refused:
            authorize(verified, ask, suspended.registry)
        assert refused.value.reason is Code.AGENCY_SUSPENDED


def test_an_agency_that_is_not_registered_asks_for_nothing(world: World) -> None:
    """Default deny."""
    verified = replace(world.verify(world.token()), agency_id="esa")

    with pytest.raises(NotPermitted) as refused:
        authorize(verified, Ask.REQUEST, world.registry)
    assert refused.value.reason is Code.AGENCY_NOT_FOUND
