"""Why an item cannot be done, and why an object is left out: two different things.

A `WorkFailed` ends the item and is reported as `failed`; checkpoint decides whether to try again. A `Rejected` ends one
object, is counted and listed, and the item goes on. Neither carries anything of an object's content.
"""

from __future__ import annotations

from typing import Literal

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Classification, FluxError

Cause = Literal["input", "transform", "infrastructure", "policy"]


class WorkFailed(FluxError):
    """The item cannot be done; `transient` says that another attempt may succeed."""

    classification = Classification.TRANSFORM

    def __init__(self, code: Code, message: str, *, cause: Cause, transient: bool = False) -> None:
        super().__init__(code, message)
        self.cause: Cause = cause
        self.transient = transient


class Rejected(Exception):
    """This object is left out of the dataset, with a code and a detail that holds nothing of its content."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail


def chain_corrupt(message: str) -> WorkFailed:
    """Return the failure of a run whose stored records do not say what they should."""
    return WorkFailed(Code.CHAIN_CORRUPT, message, cause="transform")


def plan_mismatch(message: str) -> WorkFailed:
    """Return the failure of a run whose stored plan is not the one that its digest names."""
    return WorkFailed(Code.PLAN_MISMATCH, message, cause="transform")


class NotStored(WorkFailed):
    """A file that the run's own records name is not in the store."""

    def __init__(self, name: str) -> None:
        super().__init__(Code.CHAIN_CORRUPT, f"{name} is not in the store", cause="infrastructure")
