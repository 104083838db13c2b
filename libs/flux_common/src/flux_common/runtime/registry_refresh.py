"""Looking at the agency registry again while a service runs, the same for every service that has one."""

from __future__ import annotations

import asyncio
from datetime import datetime

from flux_common.auth import Refresh, RegistrySource
from flux_common.kernel.codes import Code
from flux_common.observability.logging import get_logger

log = get_logger(__name__)


async def look_again(source: RegistrySource, now: datetime) -> None:
    """Take what changed, and say so. The files are read in a thread: a large registry would hold the loop for seconds."""
    before = source.trust.registry.digest
    match source.take(await asyncio.to_thread(source.look, now), now):
        case Refresh.RELOADED:
            log.info("agency registry reloaded", before=before, now=source.trust.registry.digest)
        case Refresh.REFUSED:
            faults = [str(fault) for fault in source.faults]
            log.error("agency registry refused; the old one stands", code=Code.SETTINGS_INVALID, faults=faults)
