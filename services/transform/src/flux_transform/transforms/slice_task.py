"""What runs inside a worker process: a slice, or one object of it, and the writing of tables.

The bytes come in and rows or files go out; nothing here reads or writes a file, opens a socket or knows a run. This
module is imported before a worker's first task (by the fork server, once), so a killed worker is replaced at once.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from flux_common.kernel.codes import Code
from flux_common.kernel.ids import sha256_hex
from flux_transform.domain.failures import Rejected
from flux_transform.domain.records import RejectedObject, Shard, SliceWork
from flux_transform.ports import FetchedObject, SliceTask
from flux_transform.transforms import registry, text
from flux_transform.transforms.parquet import encode
from flux_transform.transforms.registry import Rows

# Of Arrow's allocators, the system's reserves no address space ahead of use, and the limit counts address space.
pa.set_memory_pool(pa.system_memory_pool())
_TRANSFORMS = registry.load_all()
_STATUS = Path("/proc/self/statm")
text.prepare()


@dataclass(frozen=True, slots=True)
class ObjectWork:
    """What working one object made: rows, or a reject."""

    rows: Rows
    reject: RejectedObject | None = None


class DecoderFailed(Exception):
    """A decoder raised what nobody foresaw; only the name of the error's class crosses the border between processes."""


def prepare(address_space_bytes: int) -> None:
    """Make this process fit for hostile files: no threads, no core dumps, a limit on address space.

    The limit counts from here, after the imports, because what they reserve depends on the machine's processors.
    """
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if _STATUS.exists():
        taken = int(_STATUS.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + address_space_bytes, resource.RLIM_INFINITY))


def work_slice(task: SliceTask) -> SliceWork:
    """Work a whole slice. The processor limit only ends a hanging process whose parent was killed before it."""
    with _cpu_limit(2 * task.limits.task_wall_seconds_max), _told():
        return write(task, [work_object(task, source) for source in task.objects])


def work_object(task: SliceTask, source: FetchedObject) -> ObjectWork:
    """Work one object; a reject is a result, any other exception a fault of the transform."""
    try:
        if not source.data:
            raise Rejected(Code.OBJECT_EMPTY, "no bytes")
        transform = registry.load(task.content_type, task.use_case)
        return ObjectWork(transform.work(source, sha256_hex(source.data), task.limits))
    except Rejected as reject:
        return ObjectWork({}, RejectedObject(source.key, reject.code, reject.detail))


def work_alone(task: SliceTask, source: FetchedObject) -> ObjectWork:
    """Work one object within its processor time, and make sure that its rows can be written."""
    with _cpu_limit(task.limits.object_cpu_seconds_max), _told():
        work = work_object(task, source)
        write(task, [work])
        return work


def write_slice(task: SliceTask, works: list[ObjectWork]) -> SliceWork:
    """Write what objects made that were worked alone."""
    with _told():
        return write(task, works)


@contextmanager
def _told() -> Iterator[None]:
    """Turn whatever a decoder raises into one error that can always be pickled, and that holds nothing of an object."""
    try:
        yield
    except MemoryError:
        raise MemoryError from None
    except Exception as problem:  # noqa: BLE001 - raised again, as something that can always be pickled
        raise DecoderFailed(type(problem).__name__) from None


@contextmanager
def _cpu_limit(seconds: int) -> Iterator[None]:
    """Let the kernel end this process (SIGXCPU) when it has used some more seconds of processor time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    last = int(used.ru_utime + used.ru_stime) + 1 + seconds
    before = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (last, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, before)


def write(task: SliceTask, works: list[ObjectWork]) -> SliceWork:
    """Write the rows of some objects, at most one shard per table, and collect the rejects."""
    shards: list[Shard] = []
    for table in registry.load(task.content_type, task.use_case).TABLES:
        rows = [row for work in works for row in work.rows.get(table.name, ())]
        if rows:
            shards.append(Shard(table.name, "parquet", encode(table, rows), len(rows)))
    rejects = tuple(work.reject for work in works if work.reject is not None)
    return SliceWork(len(works) - len(rejects), tuple(shards), rejects)
