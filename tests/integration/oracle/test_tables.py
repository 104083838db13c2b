"""Faults in tables: whatever is done to a row, the invariant that it breaks is named."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from flux_common.postgres.queries import Queries
from flux_devkit.oracle.gather import read_rows

if TYPE_CHECKING:
    from conftest import Rest

FILE = Path(__file__).with_name("faults.sql")
FAULTS = Queries.parse(FILE.read_text())
NAMES = re.findall(r"^-- name: (\w+)$", FILE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
async def test_a_fault_in_the_tables_is_found(rest: Rest, name: str) -> None:
    """The fault changes rows, and breaks at least the invariant that its name begins with."""
    connection = await asyncpg.connect(rest.installation.admin_dsn)
    try:
        changing = connection.transaction()
        await changing.start()
        await connection.execute("SET LOCAL session_replication_role = replica")  # no foreign key stops a fault
        await connection.execute(FAULTS[name])
        tables = await read_rows(connection)
        await changing.rollback()
    finally:
        await connection.close()
    found = rest.new(replace(rest.world, tables=tables))

    assert tables != rest.world.tables
    assert name.partition("_")[0].upper() in found, found


async def test_nothing_of_a_fault_is_left(rest: Rest) -> None:
    """The faults were rolled back: the tables are those of the installation at rest."""
    connection = await asyncpg.connect(rest.installation.admin_dsn)
    try:
        tables = await read_rows(connection)
    finally:
        await connection.close()

    assert {*tables.lanes} == {*rest.world.tables.lanes}
    assert {*tables.leaves} == {*rest.world.tables.leaves}
