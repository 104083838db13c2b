"""The process that decodes strangers' files cannot reach the database: it imports none, can be told of none, has no login."""

from __future__ import annotations

import ast
from pathlib import Path

from flux_common.postgres.migrations import LOGIN_ROLES
from flux_common.settings import describe
from flux_transform.settings import TransformSettings

SOURCE = Path(__file__).parents[2] / "services/transform/src/flux_transform"
DATABASE = ("flux_common.postgres", "flux_common.runtime.lane_service", "asyncpg", "psycopg", "sqlite3")


def _imports() -> dict[str, set[str]]:
    """Return the modules that each file of transform imports."""
    found: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        found[path.name] = names
    return found


def test_transform_imports_no_database() -> None:
    """No module of transform imports a driver, or the parts of flux_common that use one."""
    imports = _imports()

    assert "flux_common.kafka.publisher" in set().union(*imports.values())
    assert [(f, n) for f, names in imports.items() for n in names if n.startswith(DATABASE)] == []


def test_transform_has_no_database_setting_and_no_role() -> None:
    """Nothing can be set that leads to PostgreSQL, and the cluster has no role for transform."""
    assert [setting.env for setting in describe(TransformSettings) if "POSTGRES" in setting.env] == []
    assert "flux_transform" not in LOGIN_ROLES
