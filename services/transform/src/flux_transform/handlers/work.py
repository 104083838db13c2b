"""The life of one work item: begin, do, and one last report.

Every item that is begun ends in exactly one report, `planned`, `finished` or `failed`, acknowledged before this returns;
only then may its offset be committed. `failed` says what checkpoint must know to decide: the code, whose fault it is,
whether another attempt may help, and how far the chain had been acknowledged. What is raised from here (the broker does
not answer, or an error that nobody foresaw) is the loop's to handle: the offset stays, the item comes again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Classification, Unavailable
from flux_transform import together
from flux_transform.domain.failures import WorkFailed
from flux_transform.domain.items import Item
from flux_transform.handlers import extract, finalize, gather, plan
from flux_transform.handlers.tools import Reached, Tools
from flux_transform.ports import Failure
from flux_transform.transforms import registry

Handler = Callable[[Tools, Item, Reached], Awaitable[None]]

_HANDLERS: dict[str, Handler] = {
    "plan": plan.handle,
    "extract": extract.handle,
    "gather": gather.handle,
    "finalize": finalize.handle,
}


async def work(tools: Tools, item: Item) -> Failure | None:
    """Do an item and report how it ended; return the failure, if it was one.

    Raises:
        Unavailable: the last report could not be sent.
    """
    reached = Reached(item.next_seq - 1, item.chain_head)
    try:
        _check(tools, item)
        await tools.reporter.started(item)
        async with _beating(tools, item):
            await _HANDLERS[item.kind](tools, item, reached)
        return None
    except WorkFailed as problem:
        failure = Failure(problem.code, problem.cause, problem.transient, reached.last_seq, reached.head)
    except Unavailable as problem:
        if problem.classification is not Classification.STORAGE:
            raise
        failure = Failure(problem.code, "infrastructure", True, reached.last_seq, reached.head)
    await tools.reporter.failed(item, failure)
    return failure


async def refuse_unreadable(tools: Tools, item: Item) -> Failure:
    """Report an item of which only the name is known; it costs no attempt, for another worker may read it.

    Raises:
        Unavailable: the report could not be sent.
    """
    failure = Failure(Code.WORK_UNREADABLE, "infrastructure", True, item.next_seq - 1, item.chain_head)
    await tools.reporter.failed(item, failure)
    return failure


def _check(tools: Tools, item: Item) -> None:
    """Refuse, before any output, what this worker must not or cannot do."""
    tools.check_not_dropped(item)
    if item.transform_version not in {None, tools.version}:
        message = "The item is of another transform version"
        raise WorkFailed(Code.VERSION_MISMATCH, message, cause="infrastructure", transient=True)
    registry.load(item.job.content_type, item.job.use_case)


@asynccontextmanager
async def _beating(tools: Tools, item: Item) -> AsyncIterator[None]:
    """Say `alive` every so often while the item is worked."""
    beat = asyncio.create_task(_beat(tools, item))
    try:
        yield
    finally:
        await together.stop([beat])


async def _beat(tools: Tools, item: Item) -> None:
    """A beat that cannot be sent is missed, not fatal: the item's own reports will find out."""
    while True:
        await asyncio.sleep(tools.alive_seconds)
        try:
            await tools.reporter.alive(item)
        except Unavailable:
            continue
