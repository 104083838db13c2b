"""What checkpoint's handlers need from outside, in the domain's words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from flux_checkpoint.domain.dispatch import Facts
from flux_checkpoint.domain.model import Counts, Finished, Item, ItemKey, Planned, Run, RunKey, Slice
from flux_checkpoint.domain.states import ItemState


@dataclass(frozen=True, slots=True)
class Admission:
    """A run as ingest admitted it, and where its record stands. `request` is the request as JSON."""

    agency_id: str
    run_id: UUID
    request_id: str
    request: str
    request_sha256: bytes
    run_window: int
    agency_window: int
    traceparent: str | None
    kafka_partition: int
    kafka_offset: int
    admitted_at: datetime
    deadline: datetime


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


@dataclass(frozen=True, slots=True)
class Ending:
    """What the terminal event of a run tells beside its counts."""

    manifest_uri: str | None
    manifest_digest: bytes | None
    manifest_files: int | None
    manifest_rows: int | None


class RunStore(Protocol):
    """Runs and items inside one transaction. Locks are taken in the global order: agencies, runs, then checkpoints."""

    async def insert_agencies(self, agencies: Collection[str]) -> None:
        """Know these agencies, as runs refer to them."""
        ...

    async def insert_runs(self, admissions: Sequence[Admission]) -> set[RunKey]:
        """Create the runs that are new; return their keys."""
        ...

    async def lock_runs(self, keys: Collection[RunKey]) -> dict[RunKey, Run]:
        """Lock and return the runs that exist."""
        ...

    async def lock_items(self, keys: Collection[ItemKey]) -> dict[ItemKey, Item]:
        """Lock and return the items that exist."""
        ...

    async def items_in(self, key: RunKey, states: Collection[ItemState]) -> list[Item]:
        """Lock and return a run's items in one of `states`."""
        ...

    async def unfinished_partitions(self, key: RunKey) -> int:
        """Return how many of a run's partitions are there and not finished."""
        ...

    async def restart_items(self, key: RunKey) -> None:
        """Let all of a run's items that are not finished start again: PENDING, a new term, attempts anew."""
        ...

    async def save_runs(self, runs: Sequence[Run]) -> None:
        """Write what may change of runs."""
        ...

    async def save_plan(self, key: RunKey, plan: Planned) -> None:
        """Keep the cut of a plan."""
        ...

    async def save_manifest(self, key: RunKey, finished: Finished) -> None:
        """Keep where the manifest is."""
        ...

    async def save_items(self, items: Sequence[Item]) -> None:
        """Write what may change of items."""
        ...

    async def add_history(self, rows: Sequence[HistoryRow]) -> None:
        """Append to the readable history."""
        ...

    async def digests(self, slices: Collection[tuple[ItemKey, int]]) -> dict[tuple[ItemKey, int], bytes]:
        """Return the digests of applied slices, by item and seq."""
        ...

    async def add_hashes(self, rows: Sequence[HashRow]) -> None:
        """Append links to the record chains; raises RunBroken where a chain has such a link already."""
        ...

    async def put_on_agenda(self, keys: Collection[RunKey]) -> None:
        """Let the dispatcher look at these runs now."""
        ...


class DispatchStore(Protocol):
    """What the dispatcher's pass over one run reads and writes, inside one transaction."""

    async def hold(self, shard: int, term: int, seconds: float) -> datetime:
        """Lock the shard's lease under our term and return the database's time; raises Fenced."""
        ...

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

    async def request(self, key: RunKey) -> dict[str, Any]:
        """Return the run's request as admitted."""
        ...

    async def ending(self, key: RunKey) -> Ending:
        """Return what finalize left."""
        ...

    async def end_run(
        self, key: RunKey, state: str, cause: str | None, code: str | None, totals: Counts, keep: timedelta
    ) -> datetime | None:
        """Move a run to a terminal state, once for its attempt; return when, or None if it has ended already.

        What was in hand goes back to PENDING under a new term: an ended run holds nothing of its agency's window.
        """
        ...

    async def look_again(self, key: RunKey, at: datetime | None) -> None:
        """Set when the dispatcher looks at the run next; None takes it off the agenda."""
        ...


@dataclass(frozen=True, slots=True)
class OpenRuns:
    """How many runs stand in one state, and the seconds since the one that changed least lately did."""

    count: int
    silence_s: float


class LeaseStore(Protocol):
    """The shards' leases and agendas."""

    seconds: float

    async def acquire(self, shard: int) -> int | None:
        """Return the term if the lease is ours or free, else None."""
        ...

    async def release(self, shard: int, term: int) -> None:
        """Give the lease back, so that a successor need not wait."""
        ...

    async def due(self, shard: int, most: int) -> list[RunKey]:
        """Return the runs whose time has come."""
        ...

    async def sweep(self, shard: int) -> int:
        """Put open runs that the agenda forgot back on it; return how many (it must be none)."""
        ...

    async def open_runs(self) -> dict[str, OpenRuns]:
        """Return the open runs of all agencies by state."""
        ...


class ExpiryStore(Protocol):
    """What lets an agency's old rows go, inside one transaction of its own."""

    async def agencies(self) -> list[str]:
        """Return the agencies that ever had a run."""
        ...

    async def begin(self, agency_id: str) -> datetime | None:
        """Return the database's time if no other process lets this agency's rows expire now, else None."""
        ...

    async def expire_events(self, agency_id: str, keep: timedelta, most: int) -> int:
        """Delete up to `most` lines of history that are older than `keep` and whose run has ended; return how many."""
        ...

    async def expire_runs(self, agency_id: str, most: int) -> int:
        """Delete up to `most` ended runs whose time is over, with their items and chains; return how many."""
        ...


# What opens a store on a transaction's connection.
RunStores = Callable[[Any], RunStore]
DispatchStores = Callable[[Any], DispatchStore]
