"""What the work needs of the world, in the domain's words. Each Protocol has one behavioural suite for all adapters.

Failures, for all of them: `kernel.errors.Unavailable` means "try the item again later", `WorkFailed` ends the item as
it says, `Rejected` ends one object.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from flux_transform.domain.failures import Cause
from flux_transform.domain.items import Item, Outcome, PlanSummary
from flux_transform.domain.limits import Limits
from flux_transform.domain.plan import Listed, PlannedObject
from flux_transform.domain.records import SliceWork


class Source(Protocol):
    """The objects below a source URI. Read only."""

    def list(self) -> AsyncIterator[Sequence[Listed]]:
        """Yield all objects in pages, in any order."""
        ...

    async def fetch(self, planned: PlannedObject) -> bytes:
        """Return an object's bytes, exactly as planned.

        Raises:
            Rejected: `SOURCE_CHANGED` (gone, or another size or ETag), `SOURCE_NOT_ALLOWED` (leads outside).
            Unavailable: the source does not answer.
        """
        ...


class Destination(Protocol):
    """The folder of one run. Names are relative, with slashes."""

    @property
    def uri(self) -> str:
        """Return the folder's URI, without a slash at the end."""
        ...

    async def put(self, name: str, data: bytes) -> None:
        """Store a new file durably; the same content again is a success.

        Raises:
            WorkFailed: `CHAIN_CORRUPT`, a file of this name has other content.
            Unavailable: the store does not answer.
        """
        ...

    async def replace(self, name: str, data: bytes) -> None:
        """Store a file durably, over whatever has its name."""
        ...

    async def get(self, name: str) -> bytes:
        """Return a file's bytes; `NotStored` if there is none."""
        ...

    async def get_range(self, name: str, start: int, end: int) -> bytes:
        """Return the bytes from `start` to before `end`; `NotStored` if there is no such file."""
        ...

    async def get_tail(self, name: str, length: int) -> tuple[bytes, int]:
        """Return the last `length` bytes (all if it is shorter), and the file's size."""
        ...


class Plans(Protocol):
    """The plan of a run as a file."""

    def name(self, digest: str) -> str:
        """Return the name of the plan file with this digest."""
        ...

    def encode(self, objects: Iterable[PlannedObject]) -> bytes:
        """Return the plan file of planned objects, which are in order of their partitions."""
        ...

    async def read_partition(self, store: Destination, item: Item) -> tuple[PlannedObject, ...]:
        """Return the objects of an extract item's partition; raises `WorkFailed` (`PLAN_MISMATCH`)."""
        ...

    async def read_all(
        self, store: Destination, digest: str
    ) -> tuple[Iterator[tuple[int, tuple[PlannedObject, ...]]], int]:
        """Return an iterator over (partition, its objects), after checking the digest, and the file's size in bytes.

        Raises:
            WorkFailed: `PLAN_MISMATCH`.
        """
        ...


class Stores(Protocol):
    """Opens what an item names, if its agency may use it."""

    def source(self, item: Item) -> Source:
        """Open the item's source; raises `WorkFailed` (`SOURCE_NOT_ALLOWED`, `SOURCE_MISSING`)."""
        ...

    def destination(self, item: Item) -> Destination:
        """Open the run's own folder below the item's destination; raises `WorkFailed` (`SOURCE_NOT_ALLOWED`)."""
        ...


@dataclass(frozen=True, slots=True)
class FetchedObject:
    """An object with its bytes, on its way to a worker process."""

    key: str
    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class SliceTask:
    """What a worker process needs to work a slice: nothing that names the run, the worker or the time."""

    content_type: str
    use_case: str
    options: Mapping[str, str | int | bool]
    objects: tuple[FetchedObject, ...]
    limits: Limits


class Workers(Protocol):
    """Killable processes that turn objects into shards."""

    async def work(self, task: SliceTask) -> SliceWork:
        """Work a slice; `rejects` are those found while decoding, in the order of the objects.

        Raises:
            WorkFailed: the machine, not an object, was at fault (transient), or the transform itself (not).
        """
        ...


class Reporter(Protocol):
    """Tells checkpoint; each call returns when the broker has acknowledged the report."""

    async def started(self, item: Item) -> None:
        """Say that the item is begun."""
        ...

    async def alive(self, item: Item) -> None:
        """Say that the item is still being worked."""
        ...

    async def planned(self, item: Item, plan: PlanSummary) -> None:
        """Say that the plan is stored."""
        ...

    async def sliced(self, item: Item, seq: int, record: bytes) -> None:
        """Send a slice record, byte for byte."""
        ...

    async def finished(self, item: Item, outcome: Outcome) -> None:
        """Say that the item is done."""
        ...

    async def failed(self, item: Item, failure: Failure) -> None:
        """Say that the item cannot be done."""
        ...


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an item ended badly, and how far its chain had been acknowledged."""

    code: str
    cause: Cause
    transient: bool
    last_seq: int = 0
    head: str | None = None


class Fences(Protocol):
    """What has been heard of fences and revoked assignments, so far."""

    def dropped(self, item: Item) -> bool:
        """Return whether the item is no longer this worker's to do."""
        ...
