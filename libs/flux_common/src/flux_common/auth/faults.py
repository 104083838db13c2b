"""Every fault of a configuration at once, each with the path to it: one round of corrections instead of many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Classification, FluxError


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: where (`agencies[0].issuers["…"].jwks`), what, and what to do about it."""

    path: str
    problem: str
    next_step: str = "correct it; docs/trust.md says what may stand here"

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class ConfigurationRefused(FluxError):
    """The agency registry or a key set has faults: nothing of it is used."""

    classification = Classification.VALIDATION

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__(Code.SETTINGS_INVALID, "; ".join(map(str, self.faults)))
