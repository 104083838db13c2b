"""Runs and items in PostgreSQL, inside a transaction that somebody else opened: the lanes' and the dispatcher's `RunStore`."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import astuple
from typing import Any

from flux_checkpoint.adapters.rows import columns_of, item_columns, item_of, run_columns, run_of
from flux_checkpoint.domain.model import Finished, Item, ItemKey, Planned, Run, RunKey
from flux_checkpoint.domain.states import ItemState
from flux_checkpoint.ports import Admission, HashRow, HistoryRow
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import RunBroken
from flux_common.kernel.ids import shard_of
from flux_common.postgres.database import Connection
from flux_common.postgres.queries import Queries

_SQL = Queries.load("flux_checkpoint.adapters", "runs.sql")


class PostgresRuns:
    """The `RunStore` of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def insert_agencies(self, agencies: Collection[str]) -> None:
        """Know these agencies, as runs refer to them."""
        new = sorted(set(agencies))
        if new:
            await self._connection.execute(_SQL["insert_agencies"], new, [shard_of(agency) for agency in new])

    async def insert_runs(self, admissions: Sequence[Admission]) -> set[RunKey]:
        """Create the runs that are new; return their keys."""
        made = await self._connection.fetch(_SQL["insert_runs"], *columns_of([astuple(one) for one in admissions]))
        return {RunKey(row["agency_id"], row["run_id"]) for row in made}

    async def lock_runs(self, keys: Collection[RunKey]) -> dict[RunKey, Run]:
        """Lock and return the runs that exist."""
        wanted = [(key.agency_id, key.run_id) for key in sorted(set(keys))]
        if not wanted:
            return {}
        runs = [run_of(row) for row in await self._connection.fetch(_SQL["lock_runs"], *columns_of(wanted))]
        return {run.key: run for run in runs}

    async def lock_items(self, keys: Collection[ItemKey]) -> dict[ItemKey, Item]:
        """Lock and return the items that exist."""
        wanted = [(key.agency_id, key.run_id, key.kind, key.number) for key in sorted(set(keys))]
        if not wanted:
            return {}
        items = [item_of(row) for row in await self._connection.fetch(_SQL["lock_items"], *columns_of(wanted))]
        return {item.key: item for item in items}

    async def items_in(self, key: RunKey, states: Collection[ItemState]) -> list[Item]:
        """Lock and return a run's items in one of `states`."""
        rows = await self._connection.fetch(_SQL["items_in_states"], key.agency_id, key.run_id, sorted(states))
        return [item_of(row) for row in rows]

    async def unfinished_partitions(self, key: RunKey) -> int:
        """Return how many of a run's partitions are there and not finished."""
        count: int = await self._connection.fetchval(_SQL["unfinished_partitions"], key.agency_id, key.run_id)
        return count

    async def restart_items(self, key: RunKey) -> None:
        """Let all of a run's items that are not finished start again: PENDING, a new term, attempts anew."""
        await self._connection.execute(_SQL["restart_items"], key.agency_id, key.run_id)

    async def save_runs(self, runs: Sequence[Run]) -> None:
        """Write what may change of runs."""
        if runs:
            await self._connection.execute(_SQL["save_runs"], *columns_of([run_columns(run) for run in runs]))

    async def save_plan(self, key: RunKey, plan: Planned) -> None:
        """Keep the cut of a plan."""
        await self._connection.execute(_SQL["save_plan"], key.agency_id, key.run_id, list(plan.partitions), plan.bytes)

    async def save_manifest(self, key: RunKey, finished: Finished) -> None:
        """Keep where the manifest is."""
        await self._connection.execute(
            _SQL["save_manifest"],
            key.agency_id,
            key.run_id,
            finished.manifest_uri,
            finished.result_digest,
            finished.files,
            finished.rows,
        )

    async def save_items(self, items: Sequence[Item]) -> None:
        """Write what may change of items."""
        if items:
            ordered = sorted(items, key=lambda item: item.key)
            await self._connection.execute(_SQL["save_items"], *columns_of([item_columns(item) for item in ordered]))

    async def add_history(self, rows: Sequence[HistoryRow]) -> None:
        """Append to the readable history."""
        if rows:
            await self._connection.execute(_SQL["add_history"], *columns_of([_history_columns(row) for row in rows]))

    async def digests(self, slices: Collection[tuple[ItemKey, int]]) -> dict[tuple[ItemKey, int], bytes]:
        """Return the digests of applied slices, by item and seq."""
        wanted = [(key.agency_id, key.run_id, key.number, seq) for key, seq in set(slices)]
        if not wanted:
            return {}
        rows = await self._connection.fetch(_SQL["digests"], *columns_of(wanted))
        return {
            (ItemKey(row["agency_id"], row["run_id"], "extract", row["number"]), row["seq"]): row["hash"]
            for row in rows
        }

    async def add_hashes(self, rows: Sequence[HashRow]) -> None:
        """Append links to the record chains.

        Raises:
            RunBroken: a link is there that its item knows nothing of; context names the run of the first row.
        """
        if not rows:
            return
        told = await self._connection.execute(_SQL["add_hashes"], *columns_of([_hash_columns(row) for row in rows]))
        if told != f"INSERT 0 {len(rows)}":
            broken = RunBroken(Code.CHAIN_CORRUPT, "A record chain is longer than its item says")
            raise broken.with_context(agency_id=rows[0].item.agency_id, run_id=str(rows[0].item.run_id))

    async def put_on_agenda(self, keys: Collection[RunKey]) -> None:
        """Let the dispatcher look at these runs now."""
        rows = [(shard_of(key.agency_id), key.agency_id, key.run_id) for key in sorted(set(keys))]
        if rows:
            await self._connection.execute(_SQL["put_on_agenda"], *columns_of(rows))


def _history_columns(row: HistoryRow) -> tuple[Any, ...]:
    item = row.item
    return (
        row.run.agency_id,
        row.run.run_id,
        item.kind if item else None,
        item.number if item else None,
        row.term,
        row.seq,
        row.type,
        row.code,
        json.dumps(row.detail or {}),
        row.body,
        row.source,
        row.kafka_partition,
        row.kafka_offset,
    )


def _hash_columns(row: HashRow) -> tuple[Any, ...]:
    key, done = row.item, row.slice
    return (
        key.agency_id,
        key.run_id,
        key.number,
        done.seq,
        done.prev,
        done.hash,
        row.kafka_partition,
        row.kafka_offset,
    )
