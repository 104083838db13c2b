"""Which module does what. Adding a transform means a module beside this one, and a line here; a new content
type or use case is a change of the contract besides (docs/data-plane.md).

A transform module has `TABLES`, the tables it writes in the order of their names, and `work`, a pure function from one
object to rows of those tables. It is loaded where objects are decoded, in the worker processes, and by finalize.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final, Protocol, cast

from flux_common.kernel.codes import Code
from flux_transform.domain.failures import WorkFailed
from flux_transform.domain.limits import Limits
from flux_transform.ports import FetchedObject
from flux_transform.transforms.parquet import Table

Rows = dict[str, list[dict[str, Any]]]
"""Rows by table; a table without rows may be missing."""


class Transform(Protocol):
    """What a transform module offers."""

    TABLES: tuple[Table, ...]

    def work(self, source: FetchedObject, sha256: str, limits: Limits) -> Rows:
        """Return the rows of one object; `sha256` is its checksum. Raises `Rejected`."""
        ...


_MODULES: Final[dict[tuple[str, str], str]] = {
    ("images", "research"): "images",
    ("documents", "research"): "documents",
    ("text", "research"): "text",
    ("mixed", "research"): "mixed",
}


def available(content_type: str, use_case: str) -> bool:
    """Return whether there is a transform."""
    return (content_type, use_case) in _MODULES


def transform_name(content_type: str, use_case: str) -> str:
    """Return the name that manifests give a transform."""
    return f"{content_type}/{use_case}"


def load(content_type: str, use_case: str) -> Transform:
    """Return a transform module.

    Raises:
        WorkFailed: `USE_CASE_NOT_AVAILABLE`.
    """
    if not available(content_type, use_case):
        message = f"There is no transform {transform_name(content_type, use_case)}"
        raise WorkFailed(Code.USE_CASE_NOT_AVAILABLE, message, cause="policy")
    return cast(Transform, import_module(f"flux_transform.transforms.{_MODULES[content_type, use_case]}"))


def load_all() -> list[Transform]:
    """Load every transform, so that the first object does not wait for imports."""
    return [load(*names) for names in _MODULES]
