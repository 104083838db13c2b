"""Killable processes for hostile files (pebble): what dies or hangs takes one task with it, and no other.

A slice is one task. If its process dies, hangs, runs out of memory or raises what nobody foresaw, the slice is worked
again one object at a time, so that only the guilty object is rejected; the rows of the others are then written by one
more task, which makes the same bytes as if nothing had happened. Each object alone gets a process of its own: in a
process that has worked before, an object near the memory limit passed in one run and died in the next (measured with a
PDF that unfolds to 1 GB), and a verdict must not depend on what came before. Time is judged by processor time, which
depends least on what else the machine does: used up, the object is rejected. If the wall clock runs out first, or the
process was killed from outside (the decoders never send SIGKILL), that says something about the machine: the item fails
and is tried again.

Processes come from a fork server that has the decoders loaded and holds no socket or thread of this process.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from pebble import ProcessExpired, ProcessPool

from flux_common.kernel.codes import Code
from flux_common.observability import metrics
from flux_transform import together
from flux_transform.domain.failures import WorkFailed
from flux_transform.domain.limits import Limits
from flux_transform.domain.records import RejectedObject, SliceWork
from flux_transform.ports import FetchedObject, SliceTask
from flux_transform.transforms import slice_task
from flux_transform.transforms.slice_task import DecoderFailed, ObjectWork

_Result = TypeVar("_Result")
_CASUALTIES: Final = (ProcessExpired, TimeoutError, MemoryError, DecoderFailed)
_PRELOAD: Final = "flux_transform.transforms.slice_task"


class ProcessWorkers:
    """A pool of `count` worker processes; an async context manager."""

    def __init__(self, count: int, limits: Limits) -> None:
        self._count, self._limits = count, limits
        self._pool = self._processes()
        self._fresh: ProcessPool | None = None

    def _processes(self, **more: int) -> ProcessPool:
        context = get_context("forkserver")
        context.set_forkserver_preload([_PRELOAD])
        return ProcessPool(
            max_workers=self._count,
            initializer=slice_task.prepare,
            initargs=(self._limits.address_space_bytes_max,),
            context=context,
            **more,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Kill what runs and wait until the processes are gone."""
        pools: list[Any] = [pool for pool in (self._pool, self._fresh) if pool is not None]
        for pool in pools:
            pool.stop()
            await asyncio.to_thread(pool.join)

    async def work(self, task: SliceTask) -> SliceWork:
        """Work a slice (ports.Workers)."""
        try:
            return await _run(self._pool, self._limits.task_wall_seconds_max, slice_task.work_slice, task)
        except _CASUALTIES as problem:
            metrics.worker_deaths.labels(type(problem).__name__).inc()
            return await self._one_at_a_time(task)

    async def _one_at_a_time(self, task: SliceTask) -> SliceWork:
        if self._fresh is None:
            self._fresh = self._processes(max_tasks=1)
        objects = (self._object(self._fresh, task, source) for source in task.objects)
        works = await together.all_of(objects, at_once=self._count)
        try:
            return await _run(self._pool, self._limits.task_wall_seconds_max, slice_task.write_slice, task, works)
        except DecoderFailed as problem:
            message = f"The rows of a slice cannot be written ({problem})"
            raise WorkFailed(Code.WORKER_FAILED, message, cause="transform") from problem
        except _CASUALTIES as problem:
            raise _machine(f"writing a slice failed ({type(problem).__name__})") from problem

    async def _object(self, pool: ProcessPool, task: SliceTask, source: FetchedObject) -> ObjectWork:
        bare = replace(task, objects=())
        try:
            return await _run(pool, self._limits.object_wall_seconds_max, slice_task.work_alone, bare, source)
        except ProcessExpired as problem:
            return _rejected(source, *_verdict(problem.exitcode))
        except MemoryError:
            return _rejected(source, Code.OBJECT_TOO_LARGE, "decoding takes more memory than the limit")
        except DecoderFailed as problem:
            return _rejected(source, Code.OBJECT_CORRUPT, f"decoding failed ({problem})")
        except TimeoutError as problem:
            raise _machine("an object took too long by the wall clock") from problem


async def _run(pool: ProcessPool, wall_seconds: int, function: Callable[..., _Result], *args: Any) -> _Result:
    """Run a function in a process of the pool; cancelling this kills the process."""
    return await asyncio.wrap_future(pool.schedule(function, args=args, timeout=wall_seconds))


def _rejected(source: FetchedObject, code: Code, detail: str) -> ObjectWork:
    return ObjectWork({}, RejectedObject(source.key, code, detail))


def _verdict(exit_code: int | None) -> tuple[Code, str]:
    """Return what a dead process says about the object it worked on.

    Raises:
        WorkFailed: it was killed from outside.
    """
    if exit_code == -signal.SIGKILL or exit_code == -signal.SIGTERM:
        raise _machine("a worker process was killed from outside")
    if exit_code == -signal.SIGXCPU:
        return Code.OBJECT_TIMED_OUT, "decoding used up its processor time"
    name = signal.Signals(-exit_code).name if exit_code is not None and exit_code < 0 else f"exit {exit_code}"
    return Code.OBJECT_KILLED_WORKER, f"decoding ended the process ({name})"


def _machine(message: str) -> WorkFailed:
    return WorkFailed(Code.WORKER_FAILED, message, cause="infrastructure", transient=True)
