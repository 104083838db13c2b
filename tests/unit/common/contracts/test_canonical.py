"""Canonical JSON is RFC 8785: one value, one sequence of bytes, one digest."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_common.contracts.canonical import decode_exact, digest, encode
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import ValidationFailed

# RFC 8785 appendix B.
NUMBERS = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
]


@pytest.mark.parametrize(("bits", "expected"), NUMBERS)
def test_numbers(bits: str, expected: str) -> None:
    """Numbers are written as ECMAScript writes them."""
    assert encode(struct.unpack(">d", bytes.fromhex(bits))[0]) == expected.encode()


def test_members_are_sorted_by_utf_16() -> None:
    """Names are ordered by UTF-16 code units (RFC 8785 §3.2.3), so a surrogate pair comes before U+FB33."""
    names = ["\ufb33", "\U0001f600", "\u20ac", "\r", "1", "\u0080", "\u00f6"]
    expected = ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]

    assert list(json.loads(encode(dict.fromkeys(names, 0)))) == expected


def test_texts_are_escaped_only_where_they_must() -> None:
    """Short escapes, lower-case \\u for other control characters, everything else as it is (§3.2.2.2)."""
    assert encode('\b\t\n\f\r"\\\x0f/é\u2028') == '"\\b\\t\\n\\f\\r\\"\\\\\\u000f/é\u2028"'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, -(2**53), {"a": [2**64]}])
def test_what_has_no_canonical_form(value: Any) -> None:
    """What JSON numbers cannot say exactly is refused."""
    with pytest.raises(ValidationFailed) as caught:
        encode(value)

    assert caught.value.code == Code.JSON_INVALID


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.JSON_INVALID),
        (b"\xff", Code.JSON_INVALID),
        (b"[" * 100_000, Code.JSON_INVALID),
        (b"NaN", Code.JSON_INVALID),
        (b'{"a": 1}', Code.RECORD_INVALID),
        (b'{"b":1,"a":1}', Code.RECORD_INVALID),
        (b'{"a":1,"a":1}', Code.RECORD_INVALID),
        (b'{"a":1.0}', Code.RECORD_INVALID),
        (b'{"a":1}\n', Code.RECORD_INVALID),
        (b'"\\u0061"', Code.RECORD_INVALID),
        (b"\xef\xbb\xbf1", Code.RECORD_INVALID),
        (b'"\\ud800"', Code.JSON_INVALID),
    ],
)
def test_bytes_that_are_not_canonical(data: bytes, code: Code) -> None:
    """A value that could be written otherwise is not taken: its digest would not be the value's."""
    with pytest.raises(ValidationFailed) as caught:
        decode_exact(data)

    assert caught.value.code == code


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-(2**52), 2**52)  # beyond, a float is written as an integer that is not exact
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_encoding_is_stable(value: Any) -> None:
    """Canonical bytes read back give the same bytes again, and the digest is theirs."""
    data = encode(value)

    assert encode(decode_exact(data)) == data
    assert digest(value) == hashlib.sha256(data).hexdigest()
