"""Mixed archives: each object goes where its first bytes send it, never where its name would.

What has no signature is tried as text, which refuses what is none.
"""

from __future__ import annotations

from typing import Any, Final

from flux_common.kernel.codes import Code
from flux_transform.domain.failures import Rejected
from flux_transform.domain.limits import Limits
from flux_transform.ports import FetchedObject
from flux_transform.transforms import documents, images, text
from flux_transform.transforms.parquet import Table
from flux_transform.transforms.signatures import DOCUMENT_TYPES, IMAGE_TYPES, sniff

TABLES: Final[tuple[Table, ...]] = tuple(
    sorted((*documents.TABLES, *images.TABLES, *text.TABLES), key=lambda table: table.name)
)


def work(source: FetchedObject, sha256: str, limits: Limits) -> dict[str, list[dict[str, Any]]]:
    """Return the rows that the transform of the object's own type makes.

    Raises:
        Rejected: `OBJECT_UNSUPPORTED`, or what that transform raises.
    """
    kind = sniff(source.data)
    if kind in IMAGE_TYPES:
        return images.work(source, sha256, limits)
    if kind in DOCUMENT_TYPES:
        return documents.work(source, sha256, limits)
    if kind is None:
        return text.work(source, sha256, limits)
    raise Rejected(Code.OBJECT_UNSUPPORTED, f"no transform reads {kind}")
