"""What an agency asked for and got, in PostgreSQL, inside a transaction that somebody else opened.

Every statement names the agency itself; row-level security would refuse any other. Inserts are plain: under the
agency's lock a key that is taken is a contradiction in our own tables, never a race.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from flux_common.kernel.positions import LaneBatch, Position, TopicPartition
from flux_common.postgres.database import Connection
from flux_common.postgres.queries import Queries
from flux_ingest.domain.brake import ranges
from flux_ingest.domain.model import (
    Accepted,
    Asked,
    DeadLettered,
    Decision,
    Finding,
    Flooded,
    Holder,
    Kind,
    Known,
    Rejected,
)

_SQL = Queries.load("flux_ingest.adapters", "decisions.sql")


class PostgresDecisions:
    """The `DecisionStore` of one agency in one transaction."""

    def __init__(self, connection: Connection, agency_id: str) -> None:
        self._connection = connection
        self._agency_id = agency_id

    async def lock(self) -> None:
        """Let no other lane of the agency decide until this transaction ends."""
        await self._connection.execute(_SQL["lock_agency"], self._agency_id)

    async def known(self, batch: LaneBatch, findings: Sequence[Finding]) -> Known:
        """Return what earlier decisions left behind of the ids, single uses and positions of a batch."""
        named = [one for one in findings if not isinstance(one, DeadLettered)]
        names = {kind: sorted({one.name for one in named if one.kind is kind and one.name}) for kind in Kind}
        digests = {one.single_use.digest for one in named if isinstance(one, Asked) and one.single_use is not None}
        lane = batch.lane
        rows = await self._connection.fetch(
            _SQL["known"],
            self._agency_id,
            names[Kind.RUN],
            names[Kind.COMMAND],
            [bytes.fromhex(digest) for digest in sorted(digests)],
            lane.tp.topic,
            lane.tp.kafka_partition,
            lane.next_offset,
            batch.end_offset,
        )
        return Known(
            requests=_holders(rows, "request"),
            commands=_holders(rows, "command"),
            uses=_holders(rows, "use"),
            rejected={_position(row): row["code"] for row in rows if row["what"] == "refusal"},
        )

    async def save(self, decisions: Sequence[Decision], now: datetime) -> None:
        """Remember what was accepted, spent and refused; the decisions are of one lane."""
        accepted = [one for one in decisions if isinstance(one, Accepted)]
        rejected = [one for one in decisions if isinstance(one, Rejected)]
        flooded = [one for one in decisions if isinstance(one, Flooded)]
        kept: list[Asked | Rejected | Flooded] = [*(one.asked for one in accepted), *rejected, *flooded]
        if not kept:
            return
        tp = kept[0].position.tp
        columns = (
            *_columns([_request(one.asked) for one in accepted if one.asked.kind is Kind.RUN], 4),
            *_columns([_command(one.asked) for one in accepted if one.asked.kind is Kind.COMMAND], 4),
            *_columns([_use(one) for one in accepted if one.spends is not None], 4),
            *_columns([(one.position.offset, one.request_id, one.code) for one in rejected], 3),
            *_columns(ranges([one.position.offset for one in flooded]), 2),
        )
        await self._connection.execute(_SQL["save"], self._agency_id, tp.topic, tp.kafka_partition, now, *columns)

    async def count_refusals(self, added: Mapping[datetime, int]) -> dict[datetime, int]:
        """Add refusals to their minutes; return how many each of these had before."""
        minutes = sorted(added)
        rows = await self._connection.fetch(
            _SQL["count_refusals"], self._agency_id, minutes, [added[minute] for minute in minutes]
        )
        return {row["minute"]: row["refused"] - added[row["minute"]] for row in rows}

    async def forget_uses(self, now: datetime, most: int) -> int:
        """Forget at most `most` single uses whose tokens are refused by now for their age; return how many."""
        return len(await self._connection.fetch(_SQL["forget_uses"], self._agency_id, now, most))

    async def forget_refusals(self, before: datetime) -> None:
        """Forget how many were refused in minutes `before` this."""
        await self._connection.execute(_SQL["forget_refusals"], self._agency_id, before)


def _holders(rows: Sequence[Any], what: str) -> dict[str, Holder]:
    return {row["name"]: Holder(row["sha256"].hex(), _position(row)) for row in rows if row["what"] == what}


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Return rows as columns; no rows are that many empty ones."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


def _position(row: Any) -> Position:
    return Position(TopicPartition(row["topic"], row["kafka_partition"]), row["kafka_offset"])


def _request(asked: Asked) -> tuple[Any, ...]:
    return asked.request_id, asked.run_id, bytes.fromhex(asked.sha256), asked.position.offset


def _command(asked: Asked) -> tuple[Any, ...]:
    return asked.command_id, asked.request_id, bytes.fromhex(asked.sha256), asked.position.offset


def _use(accepted: Accepted) -> tuple[Any, ...]:
    asked, use = accepted.asked, accepted.spends
    assert use is not None
    return bytes.fromhex(use.digest), bytes.fromhex(asked.sha256), asked.position.offset, use.expires_at
