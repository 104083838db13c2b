"""Kubernetes' quantities (`250m`, `5Gi`) as numbers."""

from __future__ import annotations

import re
from typing import Final

FACTORS: Final = {
    "": 1.0,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
}


def quantity(text: object) -> float:
    """Return a quantity in its base unit. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]*)", str(text))
    if not found or found[2] not in FACTORS:
        raise ValueError(f"{text!r} is no quantity")
    return float(found[1]) * FACTORS[found[2]]
