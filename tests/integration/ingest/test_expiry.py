"""Single uses are forgotten in their agency's name, each step with its fact."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from flux_common.kernel.clock import FixedClock
from flux_common.kernel.positions import TopicPartition
from flux_common.postgres.database import Database
from flux_ingest.adapters.decisions import PostgresDecisions
from flux_ingest.domain.model import Accepted, Asked, Kind, SingleUse
from flux_ingest.handlers.expiry import UsesExpiry

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def use(agency_id: str, number: int, days: int) -> Accepted:
    """Return an acceptance whose token use may be forgotten `days` from now."""
    place = TopicPartition(f"flux.{agency_id}.run.requests.v1", 0).at(number)
    single = SingleUse(f"{number:064x}", NOW + timedelta(days=days))
    return Accepted(Asked(place, Kind.RUN, agency_id, f"r-{number}", None, "0" * 64, single), single)


async def test_what_is_dead_is_forgotten_with_a_fact(ingest_database: Database) -> None:
    """Two of NASA's have expired, none of the library's: one fact in NASA's log says how many."""
    saved = {"nasa": [use("nasa", 1, -1), use("nasa", 2, -2), use("nasa", 3, 1)], "loc": [use("loc", 1, 1)]}
    for agency_id, decisions in saved.items():
        async with ingest_database.transaction([agency_id]) as connection:
            await PostgresDecisions(connection, agency_id).save(decisions, NOW)
    expiry = UsesExpiry(ingest_database, PostgresDecisions, FixedClock(NOW))
    forgotten = [await expiry.run(saved), await expiry.run(saved)]
    async with ingest_database.transaction(["nasa", "loc"]) as connection:
        left = await connection.fetch("SELECT agency_id FROM token_uses ORDER BY agency_id")
        facts = [json.loads(row["value"]) for row in await connection.fetch("SELECT value FROM outbox")]

    assert forgotten == [2, 0]
    assert [row["agency_id"] for row in left] == ["loc", "nasa"]
    assert [(fact["agency_id"], fact["type"], fact["refs"]) for fact in facts] == [
        ("nasa", "token-uses.expired", {"count": 2})
    ]
