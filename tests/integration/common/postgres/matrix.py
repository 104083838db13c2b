"""What each role should be able to do to whose rows, and one connection that tries it: the matrix of the tenancy tests.

In a cell, `own` is done on the rows of the transaction's agencies and on nobody else's, whatever the statement says; `all`
is done (machinery has no tenants); `-` is refused by the grants. Nothing else is legal, and an unset or empty setting, or
the setting of the other kind of role, is nobody's. An agency's own reader (strict mode) sees its agency under every setting
that lets it see anything.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import asyncpg

from flux_common.postgres.queries import Queries

ROWS = Queries.parse(Path(__file__).with_name("tenancy_rows.sql").read_text())["rows"]
STATEMENTS = ("SELECT", "INSERT", "UPDATE", "MOVE", "DELETE", "TRUNCATE")
EXPECTED = """
role             table                          SELECT INSERT UPDATE MOVE DELETE TRUNCATE
flux_checkpoint  flux.runs                      own    own    own    own  own    -
flux_checkpoint  flux.checkpoints               own    own    own    own  own    -
flux_checkpoint  flux.checkpoint_events         own    own    -      -    own    -
flux_checkpoint  flux.checkpoint_hashes         own    own    -      -    own    -
flux_audit       flux.audit_log                 own    own    -      -    -      -
flux_reader      flux.runs                      own    -      -      -    -      -
flux_reader      flux.checkpoints               own    -      -      -    -      -
flux_reader      flux.checkpoint_events         own    -      -      -    -      -
flux_reader      flux.checkpoint_hashes         own    -      -      -    -      -
flux_reader      flux.audit_log                 own    -      -      -    -      -
flux_reader_nasa flux.runs                      own    -      -      -    -      -
flux_reader_nasa flux.checkpoints               own    -      -      -    -      -
flux_reader_nasa flux.checkpoint_events         own    -      -      -    -      -
flux_reader_nasa flux.checkpoint_hashes         own    -      -      -    -      -
flux_reader_nasa flux.audit_log                 own    -      -      -    -      -
flux_ingest      flux_ingest.requests           own    own    -      -    -      -
flux_ingest      flux_ingest.commands           own    own    -      -    -      -
flux_ingest      flux_ingest.rejections         own    own    -      -    -      -
flux_ingest      flux_ingest.token_uses         own    own    -      -    own    -
flux_ingest      flux_ingest.refusals           own    own    own    own  own    -
flux_ingest      flux_ingest.floods             own    own    -      -    -      -
flux_audit       flux_audit.tree_heads          own    own    own    own  -      -
flux_audit       flux_audit.nodes               own    own    -      -    -      -
flux_checkpoint  flux_checkpoint.agenda         all    all    all    all  all    -
flux_checkpoint  flux_checkpoint.agencies       all    all    -      -    -      -
flux_checkpoint  flux_checkpoint.dispatcher_leases all -      all    all  -      -
*                *.lanes                        all    all    all    all  -      -
*                *.ledger                       all    all    -      -    -      -
*                *.ledger_exceptions            all    all    -      -    -      -
*                *.dead_letters                 all    all    -      -    -      -
*                *.outbox                       all    all    all    all  all    -
*                *.outbox_parked                all    all    -      -    all    -
*                *.relay_leases                 all    -      all    all  -      -
"""
# What makes a new row of a copied one.
VARIED: dict[str, dict[str, Any]] = {
    "runs": {"run_id": "00000000-0000-0000-0000-000000000002", "request_id": "r-2"},
    "audit_log": {"seq": 7, "event_id": "00000000-0000-0000-0000-000000000007"},
    "floods": {"last_offset": 7, "offsets": "{[7,8)}"},
    "lanes": {"kafka_partition": 7},
    "ledger": {"from_offset": 7, "to_offset": 8},
    "ledger_exceptions": {"first_offset": 7, "last_offset": 7},
    "dead_letters": {"kafka_offset": 7},
    "outbox_parked": {"id": 7},
    "relay_leases": {"shard": 7},
    "dispatcher_leases": {"shard": 7},
}
STRICT = "flux_reader_nasa"
LIST, ONE = "flux.current_agency_ids", "flux.current_agency_id"
Cells = dict[tuple[str, str], str]


def expected_of(role: str, table: str) -> dict[str, str]:
    """Return the line of the table for a role and a table: word by statement; `-` where there is no line."""
    for line in EXPECTED.strip().splitlines()[1:]:
        named_role, named_table, *words = line.split()
        if named_role == "*":
            named_role, named_table = role, named_table.replace("*", role)
        if (named_role, named_table) == (role, table) and role != "flux_migrate":
            return dict(zip(STATEMENTS, words, strict=True))
    return dict.fromkeys(STATEMENTS, "-")


class Matrix:
    """One role's connection, and what it can do."""

    def __init__(self, connection: Any, role: str, tables: dict[str, dict[str, Any] | None]) -> None:
        self.connection, self.role, self.tables = connection, role, tables

    def settings(self) -> dict[str, tuple[str, str] | None]:
        """Return the settings to try: esa's and nasa's, loc's, empty, none, and that of the other kind of role."""
        mine, others = (ONE, LIST) if self.role.startswith("flux_reader") else (LIST, ONE)
        own = "nasa" if mine == ONE else "esa,nasa"
        return {"own": (mine, own), "other": (mine, "loc"), "empty": (mine, ""), "unset": None, "forged": (others, own)}

    async def cell(self, table: str, statement: str, setting: tuple[str, str] | None) -> str:
        """Try one statement and take it back; say what became of it."""
        trial = self.connection.transaction()
        await trial.start()
        try:
            if setting is not None:
                await self.connection.fetchval("SELECT set_config($1, $2, true)", *setting)
            return await self._tried(table, statement)
        except asyncpg.InsufficientPrivilegeError as problem:
            return "refused" if "row-level security" in str(problem) else "denied"
        except asyncpg.UniqueViolationError:  # two rows that both became oss's
            return "oss" if statement == "MOVE" else "done"
        finally:
            await trial.rollback()

    async def _tried(self, table: str, statement: str) -> str:
        row = self.tables[table] or {}
        tenant = "agency_id" if "agency_id" in row else "'-'"
        match statement:
            case "SELECT":
                touched = await self.connection.fetch(f"SELECT DISTINCT {tenant} FROM {table}")
            case "INSERT":
                names = ", ".join(row)
                query = f"INSERT INTO {table} ({names}) SELECT {names} FROM jsonb_populate_record(NULL::{table}, $1)"
                await self.connection.execute(query, json.dumps(row))
                return "done"
            case "UPDATE":
                column = next(iter(row))
                touched = await self.connection.fetch(f"UPDATE {table} SET {column} = {column} RETURNING {tenant}")
            case "MOVE":
                column, value = ("agency_id", "'oss'") if "agency_id" in row else (next(iter(row)),) * 2
                touched = await self.connection.fetch(f"UPDATE {table} SET {column} = {value} RETURNING {tenant}")
            case "DELETE":
                touched = await self.connection.fetch(f"DELETE FROM {table} RETURNING {tenant}")
            case _:
                await self.connection.execute(f"TRUNCATE {table} CASCADE")
                return "done"
        agencies = {row[0] for row in touched}
        return ",".join(sorted(agencies)) or "nothing"

    async def measured(self, table: str) -> Cells:
        """Try every statement under every setting."""
        settings = self.settings()
        return {
            (statement, name): await self.cell(table, statement, setting)
            for statement in STATEMENTS
            for name, setting in settings.items()
        }

    def foreseen(self, table: str) -> Cells:
        """Say what should become of them."""
        return {
            (statement, name): self._foreseen(table, statement, word, name)
            for statement, word in expected_of(self.role, table).items()
            for name in self.settings()
        }

    def _foreseen(self, table: str, statement: str, word: str, setting: str) -> str:
        if word == "-":
            return "denied"
        if statement == "INSERT":
            return "done" if word == "all" or setting == "own" else "refused"
        if word == "all":
            tenants = {"outbox", "outbox_parked", "dead_letters"}
            alone = table.split(".")[1] in tenants
            rows = "nasa" if alone else "loc,nasa" if "agency_id" in (self.tables[table] or {}) else "-"
            return "oss" if statement == "MOVE" and rows != "-" else rows
        if setting in ("empty", "unset", "forged"):
            return "nothing"
        if statement == "MOVE":
            return "refused"
        if setting == "other" and self.role == STRICT:
            return "nothing"
        mine = "esa,nasa" if table == "flux.runs" and not self.role.startswith("flux_reader") else "nasa"
        return mine if setting == "own" else "loc"
