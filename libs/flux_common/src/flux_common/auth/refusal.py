"""Refusals: one code, and nothing of the stranger's input.

The producer is told the code alone. `actor` is set once steps 1 to 9 have passed, so that the decision's fact can go to
the log of the agency that was proven; without it the fact belongs to `_system`.
"""

from __future__ import annotations

from flux_common.auth.identity import Actor
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Classification, FluxError


class TokenRefused(FluxError):
    """The token does not prove who asks: reject the request with this code and go on."""

    classification = Classification.AUTHENTICATION

    def __init__(self, code: Code, actor: Actor | None = None) -> None:
        super().__init__(code, code.meaning)
        self.reason = code
        self.actor = actor


class NotPermitted(TokenRefused):
    """The token is genuine, and its bearer may not do this: reject the request with this code and go on."""

    classification = Classification.AUTHORIZATION
