"""One text in, a row and its chunks out."""

from __future__ import annotations

import gzip
import unicodedata
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_common.kernel.codes import Code
from flux_transform.domain.failures import Rejected
from flux_transform.domain.limits import DEFAULT_LIMITS, Limits
from flux_transform.ports import FetchedObject
from flux_transform.transforms import text

SHA = "0" * 64
RUSSIAN = "Все люди рождаются свободными и равными в своем достоинстве и правах. " * 5


def work(data: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the row of the text, and its chunks."""
    rows = text.work(FetchedObject("a", "", data), SHA, limits)
    return rows["texts"][0], rows["chunks"]


def code(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Code:
    """Return the code with which a text is rejected."""
    with pytest.raises(Rejected) as reject:
        work(data, limits)
    return reject.value.code


@pytest.mark.parametrize(
    ("data", "encoding", "expected"),
    [
        ("Grüße".encode(), "utf-8", "Grüße"),
        (b"\xef\xbb\xbfmarked", "utf-8", "marked"),
        ("Grüße".encode("utf-16"), "utf-16-le", "Grüße"),
        (b"\xfe\xff" + "Grüße".encode("utf-16-be"), "utf-16-be", "Grüße"),
        (b"\xff\xfe\x00\x00" + "Grüße".encode("utf-32-le"), "utf-32-le", "Grüße"),
        (RUSSIAN.encode("cp1251"), "cp1251", RUSSIAN),
        (b"a\r\nb\rc\nd", "utf-8", "a\nb\nc\nd"),
        ("e\u0301".encode(), "utf-8", "\u00e9"),
    ],
)
def test_text_is_decoded_and_normalised(data: bytes, encoding: str, expected: str) -> None:
    """Mark, then strict UTF-8, then the detector; NFC and line feeds whatever it was."""
    row, _ = work(data)

    assert (row["encoding"], row["text"]) == (encoding, expected)


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf\xff\xff",
        b"a\x00b",
        bytes(range(1, 32)) * 10,
        b"\xff\xfe\x00\xd8",
        bytes(range(256)) * 4,
    ],
)
def test_what_is_no_text_is_refused(data: bytes) -> None:
    """A broken mark, NUL, control characters, a lone surrogate, all bytes: none decodes to text."""
    assert code(data) == Code.TEXT_UNDECODABLE


def test_a_gzip_named_txt_is_refused() -> None:
    """Every detector finds an encoding for it; its signature says what it is."""
    assert code(gzip.compress(b"The whole text. " * 500)) == Code.OBJECT_UNSUPPORTED


def test_a_form_feed_or_a_stray_escape_is_still_text() -> None:
    """Old texts have them; one control character in a thousand is allowed."""
    row, _ = work(b"page one\f" + b"x" * 2000 + b"\x1b")

    assert row["chars"] == 2010


def test_a_run_of_combining_marks_is_refused_before_it_is_normalised() -> None:
    """400 kB of them would hang the interpreter; a run within the limit, and any number of short ones, pass."""
    hostile = ("a" + "\u0316\u0301" * 100_000).encode()
    polite = ("a\u0301" * 10_000).encode()

    assert code(hostile) == Code.OBJECT_TOO_LARGE
    assert work(polite)[0]["chars"] == 10_000


def test_a_text_has_a_limit() -> None:
    """Characters are counted before anything is done with them."""
    assert code(b"abc", replace(DEFAULT_LIMITS, text_chars_max=2)) == Code.OBJECT_TOO_LARGE


@pytest.mark.parametrize(
    ("words", "expected"),
    [("To be, or not to be, that is the question. ", "en"), (RUSSIAN, "ru"), ("1234 5678 " * 50, "und")],
)
def test_the_language_is_told_where_there_are_letters(words: str, expected: str) -> None:
    """Too few letters to tell are `und`, not a guess."""
    assert text.language(words * 3) == expected


def test_near_duplicates_share_most_of_their_minhash() -> None:
    """One changed word in a text moves few of 128 values; another text moves nearly all."""
    words = [f"word{n}" for n in range(400)]
    original, changed = text.minhash(" ".join(words)), text.minhash(" ".join([*words[:200], "other", *words[201:]]))
    foreign = text.minhash(" ".join(reversed(words)))

    assert len(original) == text.MINHASH_PERMUTATIONS
    assert sum(map(int.__eq__, original, changed)) > 110
    assert sum(map(int.__eq__, original, foreign)) < 20
    assert text.minhash("") == []


def test_paragraphs_are_packed_into_chunks() -> None:
    """Chunks are whole paragraphs while they fit, and name their place in the text."""
    body = "\n\n".join(["a" * 900, "b" * 900, "c" * 900])

    row, chunks = work(body.encode())

    assert row["paragraphs"] == 3
    assert [(chunk["start"], chunk["end"]) for chunk in chunks] == [(0, 1802), (1804, 2704)]
    assert [chunk["text"] for chunk in chunks] == [body[0:1802], body[1804:2704]]


texts = st.text(st.sampled_from("ab \n\t"), max_size=300)


@given(texts)
def test_paragraphs_are_the_lines_that_are_not_blank(body: str) -> None:
    """Spans are in order, apart, not blank, and hold all that is not space."""
    spans = list(text.paragraphs(body))

    assert all(a < b for a, b in spans)
    assert all(spans[i][1] < spans[i + 1][0] for i in range(len(spans) - 1))
    assert "".join("".join(body[a:b].split()) for a, b in spans) == "".join(body.split())


@given(st.lists(st.integers(1, 5_000), max_size=8), st.booleans())
def test_chunks_hold_everything_within_their_limit(lengths: list[int], spaced: bool) -> None:
    """No chunk is longer than the limit, and no word is lost between chunks."""
    body = "\n\n".join(("ab " * length)[:length].strip() or "x" if spaced else "a" * length for length in lengths)

    chunks = [body[a:b] for a, b in text.chunk_spans(body, text.paragraphs(body))]

    assert all(0 < len(chunk) <= text.CHUNK_CHARS_MAX for chunk in chunks)
    assert "".join("".join(chunks).split()) == "".join(body.split())


@given(st.text(max_size=200))
def test_normalising_is_nfc(body: str) -> None:
    """Whatever passes is in NFC and has no carriage return."""
    try:
        found = text.normalise(body, DEFAULT_LIMITS)
    except Rejected:
        return

    assert unicodedata.is_normalized("NFC", found)
    assert "\r" not in found
