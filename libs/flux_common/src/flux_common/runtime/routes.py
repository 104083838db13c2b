"""The operations port: probes and metrics as ASGI routes of the frame."""

from __future__ import annotations

import json
from collections.abc import Callable

from faststream.asgi import AsgiResponse, get
from faststream.asgi.types import ASGIApp, Scope

from flux_common.observability import metrics
from flux_common.runtime.health import Health, Verdict


def ops_routes(health: Health) -> list[tuple[str, ASGIApp]]:
    """Return the routes /livez, /readyz, /startupz and /metrics."""

    @get(include_in_schema=False)
    async def exposition(scope: Scope) -> AsgiResponse:
        return AsgiResponse(metrics.exposition(), 200, {"content-type": metrics.CONTENT_TYPE})

    return [
        ("/livez", _probe(health.livez)),
        ("/readyz", _probe(health.readyz)),
        ("/startupz", _probe(health.startupz)),
        ("/metrics", exposition),
    ]


def _probe(judge: Callable[[], Verdict]) -> ASGIApp:
    @get(include_in_schema=False)
    async def probe(scope: Scope) -> AsgiResponse:
        verdict = judge()
        body = json.dumps(verdict.body).encode() + b"\n"
        return AsgiResponse(body, verdict.status, {"content-type": "application/json", "cache-control": "no-store"})

    return probe
