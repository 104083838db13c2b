"""What an agency may ask for: each objection, and their order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flux_common.kernel.codes import Code
from flux_ingest.domain.terms import Wish, objection

GOOD = Wish("nasa", b"r-1", "r-1", "research")
WRONG = {
    "agency_named": "loc",
    "record_key": b"r-2",
    "use_case": "vr",
    "source_allowed": False,
    "destination_allowed": False,
}
ORDER = [
    ("agency_named", Code.AGENCY_MISMATCH),
    ("record_key", Code.KEY_MISMATCH),
    ("use_case", Code.USE_CASE_NOT_AVAILABLE),
    ("source_allowed", Code.SOURCE_NOT_ALLOWED),
    ("destination_allowed", Code.SOURCE_NOT_ALLOWED),
]


@pytest.mark.parametrize(
    "wish", [GOOD, replace(GOOD, agency_named=None), replace(GOOD, record_key=None), Wish(None, None, "r")]
)
def test_a_good_wish_meets_no_objection(wish: Wish) -> None:
    """What is not named cannot be wrong; a command has no use case and no places."""
    assert objection(wish, "nasa") is None


@pytest.mark.parametrize(("name", "code"), ORDER)
def test_each_objection_has_its_code(name: str, code: Code) -> None:
    """One thing wrong, one code."""
    assert objection(replace(GOOD, **{name: WRONG[name]}), "nasa") is code


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_the_first_objection_speaks(first: int) -> None:
    """With everything wrong from one step on, that step's code is given."""
    wrong = {name: WRONG[name] for name, _ in ORDER[first:]}

    assert objection(replace(GOOD, **wrong), "nasa") is ORDER[first][1]
