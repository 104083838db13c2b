"""The class of a position: the ledger's word goes first, and what is not known is called so."""

from __future__ import annotations

from typing import Any

import pytest

from flux_client.explaining import classify

PRESENT: dict[str, Any] = {"record": {"state": "present"}}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({**PRESENT, "ledger": {"class": "fenced"}, "effects": [{}]}, "fenced"),
        ({**PRESENT, "ledger": {"class": "unknown"}, "effects": [{}]}, "effect"),
        ({**PRESENT, "ledger": None, "decision": {"type": "x"}}, "effect"),
        ({**PRESENT, "ledger": None, "sealed": {"seq": 0}}, "effect"),
        ({**PRESENT, "ledger": None, "dead_letter": {"code": "X"}, "decision": None}, "dead_letter"),
        ({"record": {"state": "control"}, "ledger": None}, "control"),
        ({"record": {"state": "not yet written"}, "ledger": None}, "unread"),
        ({"record": {"state": "expired"}, "ledger": None}, "unknown"),
        ({**PRESENT, "ledger": None, "effects": [], "dead_letter": None}, "unknown"),
    ],
)
def test_a_position_has_one_class(found: dict[str, Any], expected: str) -> None:
    """Each trace means one class."""
    assert classify(found) == expected
