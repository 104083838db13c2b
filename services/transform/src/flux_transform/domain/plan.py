"""The plan of a run: which objects, in which order, in which partition. A pure function of a listing and a request.

Once stored, the plan is the authority: retries execute it and never list again, and an object that no longer has the
ETag that stands here is a reject, never a silent new input.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flux_common.kernel.codes import Code
from flux_transform.domain import globs, media
from flux_transform.domain.failures import WorkFailed
from flux_transform.domain.items import Job
from flux_transform.domain.limits import Limits


@dataclass(frozen=True, slots=True)
class Listed:
    """One object as its store lists it; the size is in bytes."""

    key: str
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class PlannedObject:
    """One line of the plan."""

    key: str
    size: int
    etag: str
    media_type: str
    partition: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The objects in order of their keys, each with its partition; partitions are numbered from 0 without a gap."""

    objects: tuple[PlannedObject, ...]
    partitions: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Return the sum of the objects' sizes."""
        return sum(planned.size for planned in self.objects)


def make_plan(listing: Iterable[Listed], job: Job, limits: Limits) -> Plan:
    """Filter, sort and cut a listing.

    Raises:
        WorkFailed: `SOURCE_EMPTY` (nothing is left), `PLAN_TOO_LARGE` (more partitions or objects than one run may have).
    """
    objects = sorted(_meant(listing, job, limits), key=lambda listed: listed.key)
    if not objects:
        raise WorkFailed(Code.SOURCE_EMPTY, "No object of the source matches the request", cause="input")
    planned = tuple(_cut(objects, job.partition_objects_max, job.partition_bytes_max))
    counts = _counts(planned)
    if len(counts) > limits.plan_partitions_max:
        raise _too_large(f"{len(counts)} partitions, {limits.plan_partitions_max} allowed; raise partitioning")
    return Plan(planned, counts)


def _meant(listing: Iterable[Listed], job: Job, limits: Limits) -> list[Listed]:
    """Keep what the patterns select; keys that end in a slash are folder markers of object stores."""
    kept: list[Listed] = []
    for listed in listing:
        if not listed.key.endswith("/") and globs.selected(listed.key, job.include, job.exclude):
            kept.append(listed)
            if len(kept) > limits.plan_objects_max:
                raise _too_large(f"more than {limits.plan_objects_max} objects; split the source")
    return kept


def _too_large(message: str) -> WorkFailed:
    return WorkFailed(Code.PLAN_TOO_LARGE, message, cause="input")


def _cut(objects: Sequence[Listed], objects_max: int, bytes_max: int) -> Iterable[PlannedObject]:
    """Fill partitions greedily; an object larger than `bytes_max` has a partition of its own."""
    partition, count, size = 0, 0, 0
    for listed in objects:
        if count and (count >= objects_max or size + listed.size > bytes_max):
            partition, count, size = partition + 1, 0, 0
        count, size = count + 1, size + listed.size
        yield PlannedObject(listed.key, listed.size, listed.etag, media.guess(listed.key), partition)


def _counts(objects: Sequence[PlannedObject]) -> tuple[int, ...]:
    counts = [0] * (objects[-1].partition + 1)
    for planned in objects:
        counts[planned.partition] += 1
    return tuple(counts)
