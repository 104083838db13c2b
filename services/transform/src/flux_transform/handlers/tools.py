"""What every handler gets from wiring."""

from __future__ import annotations

from dataclasses import dataclass

from flux_common.kernel.codes import Code
from flux_transform.domain.failures import WorkFailed
from flux_transform.domain.items import Item
from flux_transform.domain.limits import Limits
from flux_transform.ports import Fences, Plans, Reporter, Stores, Workers


@dataclass(frozen=True, slots=True)
class Tools:
    """The ports, the limits and this worker's transform version.

    `slices_at_once` bounds an item's memory; with 2, a slice is fetched while the one before it is worked.
    """

    stores: Stores
    plans: Plans
    workers: Workers
    reporter: Reporter
    fences: Fences
    limits: Limits
    version: str
    alive_seconds: float = 30.0
    slices_at_once: int = 2
    fetches_at_once: int = 8
    reads_at_once: int = 16

    def check_not_dropped(self, item: Item) -> None:
        """Raise `Dropped` if the item is fenced or no longer assigned to this worker."""
        if self.fences.dropped(item):
            raise Dropped(item)


class Dropped(WorkFailed):
    """The item is no longer this worker's: stop, and say so."""

    def __init__(self, item: Item) -> None:
        super().__init__(Code.DROPPED, f"{item.name} was fenced", cause="infrastructure", transient=True)


@dataclass(slots=True)
class Reached:
    """How far an item's chain is acknowledged; written by extract, read when a failure is reported."""

    last_seq: int
    head: str | None
