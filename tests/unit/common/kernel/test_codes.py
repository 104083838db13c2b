"""Codes are names for people and programs: of one form, each with one line."""

from __future__ import annotations

import re

import pytest
from pydantic import TypeAdapter

from flux_common.contracts.types import CodeText
from flux_common.kernel.codes import Code


@pytest.mark.parametrize("code", Code)
def test_a_code(code: Code) -> None:
    """Its name is its value and of the contract's form; its meaning is one sentence of one line."""
    assert code.name == code.value == str(code) == TypeAdapter(CodeText).validate_python(str(code))
    assert re.fullmatch(r"[A-Z][^\n|]+\.", code.meaning)


def test_a_code_is_found_by_its_value() -> None:
    """A code that was stored as text is the member again, meaning and all."""
    assert TypeAdapter(Code).validate_python("FORK") is Code.FORK
    assert len({code.meaning for code in Code}) == len(Code)
