"""What checkpoint's handlers need from outside, in the domain's words."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from flux_checkpoint.domain.dispatch import Facts
from flux_checkpoint.domain.model import Item, ItemKey, Run, RunKey, Slice


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One line of the readable history; `body` is the slice record where there is one."""

    run: RunKey
    item: ItemKey | None
    term: int | None
    seq: int | None
    type: str
    code: str | None
    source: str
    kafka_partition: int | None = None
    kafka_offset: int | None = None
    body: bytes | None = None
    detail: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class HashRow:
    """One link of a record chain, with the position of the report that brought it."""

    item: ItemKey
    slice: Slice
    kafka_partition: int
    kafka_offset: int


class RunStore(Protocol):
    """Runs and items inside one transaction. Locks are taken in the global order: runs, then checkpoints."""

    async def lock_runs(self, keys: Collection[RunKey]) -> dict[RunKey, Run]:
        """Lock and return the runs that exist."""
        ...

    async def lock_items(self, keys: Collection[ItemKey]) -> dict[ItemKey, Item]:
        """Lock and return the items that exist."""
        ...

    async def save_runs(self, runs: Sequence[Run]) -> None:
        """Write what may change of runs."""
        ...

    async def save_items(self, items: Sequence[Item]) -> None:
        """Write what may change of items."""
        ...

    async def add_history(self, rows: Sequence[HistoryRow]) -> None:
        """Append to the readable history."""
        ...

    async def add_hashes(self, rows: Sequence[HashRow]) -> None:
        """Append links to the record chains."""
        ...

    async def put_on_agenda(self, keys: Collection[RunKey]) -> None:
        """Let the dispatcher look at these runs now."""
        ...


class DispatchStore(Protocol):
    """What the dispatcher's pass over one run reads and writes."""

    async def gather(self, run: Run, now: datetime) -> Facts:
        """Return the facts of one pass."""
        ...

    async def make_items(self, key: RunKey, kind: str, items: Sequence[tuple[int, int, int]]) -> None:
        """Create PENDING items: (number, first object, object count) each."""
        ...

    async def heads(self, key: RunKey, first: int, most: int) -> list[tuple[int, int, bytes]]:
        """Return number, last_seq and chain head of finished partitions from number `first` on."""
        ...

    async def indexes(self, key: RunKey) -> list[tuple[int, bytes]]:
        """Return number and index digest of the finished gather items."""
        ...

    async def rejects_by_code(self, key: RunKey) -> dict[str, int]:
        """Return the rejected objects of a run by code."""
        ...

    async def job(self, key: RunKey) -> dict[str, Any]:
        """Return the run's request as admitted."""
        ...

    async def look_again(self, key: RunKey, at: datetime | None) -> None:
        """Set when the dispatcher looks at the run next; None takes it off the agenda."""
        ...
