"""Which transform this is: everything that decides the bytes of a dataset, in one line.

Same plan and same transform version mean the same bytes. So the version names the package, the libraries that decode
and encode, the Unicode tables of this Python (normalisation depends on them), and the limits if they are not the
default ones. Work items carry it, and a worker of another version says `VERSION_MISMATCH` before it writes anything.
"""

from __future__ import annotations

import unicodedata
from dataclasses import asdict
from importlib.metadata import version
from typing import Final

from flux_common.contracts import canonical
from flux_transform.domain.limits import DEFAULT_LIMITS, Limits

_LIBRARIES: Final = (
    "chardet",
    "lxml",
    "numpy",
    "pillow",
    "py3langid",
    "pyarrow",
    "pypdfium2",
    "python-docx",
    "rensa",
    "zstandard",
)


def transform_version(limits: Limits = DEFAULT_LIMITS) -> str:
    """Return the version line, at most 256 characters."""
    parts = [f"flux-transform/{version('flux-transform')}"]
    parts += [f"{library}/{version(library)}" for library in _LIBRARIES]
    parts.append(f"unicode/{unicodedata.unidata_version}")
    if limits != DEFAULT_LIMITS:
        parts.append(f"limits/{canonical.digest(asdict(limits))[:12]}")
    return " ".join(parts)
