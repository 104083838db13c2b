"""Real processes and hostile objects: only the guilty one is rejected, and nothing else is lost."""

from __future__ import annotations

import asyncio
import ctypes
import io
import zlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace

import psutil
import pytest
from pebble import ProcessExpired
from PIL import Image

from flux_common.kernel.codes import Code
from flux_transform.adapters import workers as workers_module
from flux_transform.adapters.workers import ProcessWorkers
from flux_transform.domain.failures import WorkFailed
from flux_transform.domain.limits import DEFAULT_LIMITS, Limits
from flux_transform.ports import FetchedObject, SliceTask
from flux_transform.transforms import slice_task

Open = Callable[..., AbstractAsyncContextManager[ProcessWorkers]]
# With the early checks out of the way, so that the processes' own limits are what is tested.
SHORT = replace(
    DEFAULT_LIMITS,
    task_wall_seconds_max=2,
    object_cpu_seconds_max=1,
    object_wall_seconds_max=60,
    combining_run_max=10**8,
    unfolded_bytes_max=2**40,
    address_space_bytes_max=300 * 2**20,
)
HANG = FetchedObject("b-hang", "", ("a" + "\u0316\u0301" * 200_000).encode())
TEXTS = (FetchedObject("a", "", b"alpha"), FetchedObject("c", "", b"gamma"))


def task(content_type: str, *objects: FetchedObject, limits: Limits = DEFAULT_LIMITS) -> SliceTask:
    """Return a slice of objects in order of their keys."""
    ordered = tuple(sorted(objects, key=lambda source: source.key))
    return SliceTask(content_type, "research", {}, ordered, limits)


def pdf_bomb() -> bytes:
    """Return a PDF whose one stream unfolds to 500 MB."""
    stream = zlib.compress(bytes(500_000_000), 1)
    return b"".join(
        [
            b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n",
            b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>endobj\n4 0 obj<</Length ",
            str(len(stream)).encode() + b"/Filter/FlateDecode>>stream\n" + stream + b"\nendstream endobj\n",
            b"trailer<</Root 1 0 R>>\n%%EOF",
        ]
    )


def worker_processes() -> list[psutil.Process]:
    """Return what the fork server forked: this process has other grandchildren, the session's Kafka and PostgreSQL."""
    servers = [child for child in psutil.Process().children() if "forkserver" in " ".join(child.cmdline())]
    return [process for server in servers for process in server.children()]


async def test_a_slice_makes_the_same_in_a_process_as_here(open_workers: Open) -> None:
    """What crosses the border between processes is not changed by it."""
    async with open_workers() as workers:
        found = await workers.work(task("text", *TEXTS))

    assert found == slice_task.work_slice(task("text", *TEXTS))


async def test_an_object_that_hangs_is_rejected_and_the_others_are_written(open_workers: Open) -> None:
    """The interpreter hangs beyond any signal; the process is killed, the slice redone one object at a time."""
    async with open_workers(limits=SHORT) as workers:
        found = await workers.work(task("text", *TEXTS, HANG, limits=SHORT))

    expected = slice_task.work_slice(task("text", *TEXTS))
    assert [(reject.key, reject.code) for reject in found.rejects] == [("b-hang", Code.OBJECT_TIMED_OUT)]
    assert (found.written, found.shards) == (2, expected.shards)


async def test_an_object_that_kills_its_process_is_rejected(open_workers: Open) -> None:
    """PDFium aborts when memory ends; that is the object's fault, and its neighbours'."""
    neighbour = FetchedObject("a", "", b"%PDF-1.4 broken")
    async with open_workers(limits=SHORT) as workers:
        found = await workers.work(task("documents", neighbour, FetchedObject("b", "", pdf_bomb()), limits=SHORT))

    assert [(reject.key, reject.code) for reject in found.rejects] == [
        ("a", Code.OBJECT_CORRUPT),
        ("b", Code.OBJECT_KILLED_WORKER),
    ]


async def test_an_object_that_takes_too_much_memory_is_rejected(open_workers: Open) -> None:
    """An image within the pixel limit, whose pixels do not fit into the address space that is left."""
    sink = io.BytesIO()
    Image.new("1", (12_000, 12_000)).convert("RGB", dither=Image.Dither.NONE).save(sink, "PNG", compress_level=1)
    small = io.BytesIO()
    Image.new("RGB", (10, 10)).save(small, "PNG")
    async with open_workers(limits=SHORT) as workers:
        large = FetchedObject("b", "", sink.getvalue())
        found = await workers.work(task("images", FetchedObject("a", "", small.getvalue()), large, limits=SHORT))

    assert [(reject.key, reject.code) for reject in found.rejects] == [("b", Code.OBJECT_TOO_LARGE)]
    assert found.written == 1


async def test_what_nobody_foresaw_costs_one_object(open_workers: Open) -> None:
    """An error outside every list is the object's, and only its class is told; the service goes on."""
    strange = FetchedObject("b", "", "text instead of bytes")  # type: ignore[arg-type]
    async with open_workers() as workers:
        found = await workers.work(task("text", *TEXTS, strange))

    assert [(reject.key, reject.code, reject.detail) for reject in found.rejects] == [
        ("b", Code.OBJECT_CORRUPT, "decoding failed (TypeError)")
    ]
    assert found.shards == slice_task.work_slice(task("text", *TEXTS)).shards


async def test_a_segmentation_fault_costs_one_task(open_workers: Open) -> None:
    """Slices that are worked at the same time end as if nothing had happened."""
    async with open_workers() as workers:
        slices = [asyncio.create_task(workers.work(task("text", *TEXTS))) for _ in range(6)]
        with pytest.raises(ProcessExpired):
            await workers_module._run(workers._pool, 60, ctypes.string_at, 0)
        found = await asyncio.gather(*slices)

    assert found == [slice_task.work_slice(task("text", *TEXTS))] * 6


async def test_a_process_killed_from_outside_is_not_the_objects_fault(open_workers: Open) -> None:
    """The item fails and may be tried again; nobody is rejected."""
    limits = replace(SHORT, object_cpu_seconds_max=60)

    async def kill_workers() -> None:
        while True:
            await asyncio.sleep(0.2)
            for process in worker_processes():
                with suppress(psutil.NoSuchProcess):
                    if sum(process.cpu_times()[:2]) > 0.5:
                        process.kill()

    async with open_workers(limits=limits) as workers:
        killer = asyncio.create_task(kill_workers())
        with pytest.raises(WorkFailed) as failed:
            await workers.work(task("text", HANG, limits=limits))
        killer.cancel()

    assert (failed.value.code, failed.value.cause, failed.value.transient) == (
        Code.WORKER_FAILED,
        "infrastructure",
        True,
    )


async def test_a_slow_machine_is_not_the_objects_fault(open_workers: Open) -> None:
    """If the wall clock runs out before the processor time, the item is tried again."""
    limits = replace(SHORT, task_wall_seconds_max=1, object_cpu_seconds_max=60, object_wall_seconds_max=1)
    async with open_workers(limits=limits) as workers:
        with pytest.raises(WorkFailed) as failed:
            await workers.work(task("text", HANG, limits=limits))

    assert failed.value.transient


async def test_cancelling_kills_the_process(open_workers: Open) -> None:
    """A dropped item does not keep a worker busy, and closing leaves no process behind."""
    limits = replace(SHORT, task_wall_seconds_max=60)
    async with open_workers(count=1, limits=limits) as workers:
        hanging = asyncio.create_task(workers.work(task("text", HANG, limits=limits)))
        await asyncio.sleep(1)
        hanging.cancel()
        found = await workers.work(task("text", *TEXTS))

    assert found.written == 2
    assert worker_processes() == []
