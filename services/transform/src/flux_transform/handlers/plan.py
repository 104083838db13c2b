"""The plan step: list, decide, store, report. Everything after it executes the stored plan."""

from __future__ import annotations

import asyncio

from flux_common.kernel.ids import sha256_hex
from flux_transform.domain.items import Item, PlanSummary
from flux_transform.domain.plan import Listed, make_plan
from flux_transform.handlers.tools import Reached, Tools


async def handle(tools: Tools, item: Item, _reached: Reached) -> None:
    """Plan a run (handlers.work)."""
    listing: list[Listed] = []
    async for page in tools.stores.source(item).list():
        listing.extend(page)
        tools.check_not_dropped(item)
    plan = await asyncio.to_thread(make_plan, listing, item.job, tools.limits)
    data = await asyncio.to_thread(tools.plans.encode, plan.objects)
    digest = sha256_hex(data)
    await tools.stores.destination(item).put(tools.plans.name(digest), data)
    tools.check_not_dropped(item)
    await tools.reporter.planned(item, PlanSummary(digest, len(plan.objects), plan.bytes, plan.partitions))
