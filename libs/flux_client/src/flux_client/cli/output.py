"""Results on standard output: a table for people, JSON and YAML for programs.

JSON is stable: names and their order are part of the contract, times are RFC 3339 in UTC, digests lower-case
hexadecimal, ids text, counts integers. A list is one array; what is followed is one object a line. Everything that is
not the result (progress, errors) goes to standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from flux_client.cli.options import Format

Row = Mapping[str, Any]


def plain(value: Any) -> Any:
    """Return a value in JSON's own types."""
    if isinstance(value, datetime):
        from flux_common.kernel.clock import rfc3339

        return rfc3339(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def show(value: Row | Sequence[Row], how: Format, columns: Sequence[str] = ()) -> None:
    """Write one object or a list; `columns` choose what a table of a list shows."""
    result = plain(value)
    if how is Format.JSON:
        print_line(json.dumps(result, indent=2, ensure_ascii=False))
    elif how is Format.YAML:
        import yaml

        sys.stdout.write(yaml.safe_dump(result, sort_keys=False, allow_unicode=True))
    elif isinstance(result, list):
        _table(result, columns)
    else:
        _pairs(result)


def show_line(row: Row, how: Format) -> None:
    """Write one object of many that come one after the other: a line of JSON, a YAML document, or a line of text."""
    result = plain(row)
    if how is Format.JSON:
        print_line(json.dumps(result, ensure_ascii=False))
    elif how is Format.YAML:
        print_line("---")
        show(row, how)
    else:
        print_line("  ".join(_cell(value) for value in result.values() if value not in (None, {}, "")))


def print_line(text: str) -> None:
    """Write a line to standard output now."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Write a line to standard error: what is not the result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    names = list(columns) or list(rows[0] if rows else ())
    if sys.stdout.isatty():
        _rich_table(rows, names)
        return
    cells = [[name.upper() for name in names], *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(names))]
    for line in cells:
        print_line("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _rich_table(rows: Sequence[Row], names: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in names:
        number = bool(rows) and isinstance(rows[0].get(name), int)
        table.add_column(name.upper(), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in names))
    Console(highlight=False, markup=False).print(table)


def _pairs(row: Row, indent: str = "") -> None:
    width = max((len(name) for name in row), default=0)
    for name, value in row.items():
        if isinstance(value, dict) and value:
            print_line(f"{indent}{name}:")
            _pairs(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            print_line(f"{indent}{name}:")
            for item in value:
                print_line(f"{indent}  - " + ", ".join(f"{key} {_cell(inner)}" for key, inner in item.items()))
        else:
            print_line(f"{indent}{name.ljust(width)}  {_cell(value)}")


def _cell(value: Any) -> str:
    if value is None or value in ({}, []):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
