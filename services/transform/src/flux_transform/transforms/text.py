"""Texts for research: decoded, normalised, cut into chunks, with language and near-duplicate signature.

The encoding is what a byte order mark says, else UTF-8 if every byte is, else what chardet finds, decoded strictly. A
detector finds some encoding for anything, so two checks are ours: bytes with the signature of a binary format are no
text, and what decodes to control characters is none either. Normalisation (NFC, UAX #15) is quadratic in the length of
a run of combining marks, in C and beyond any signal; such a run is refused before it is normalised.
"""

from __future__ import annotations

import codecs
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Final

import chardet
import numpy as np
import py3langid
import pyarrow as pa
from rensa import RMinHash

from flux_common.kernel.codes import Code
from flux_transform.domain.failures import Rejected
from flux_transform.domain.limits import Limits
from flux_transform.ports import FetchedObject
from flux_transform.transforms.parquet import Table
from flux_transform.transforms.signatures import sniff

CHUNK_CHARS_MAX: Final = 2_000
MINHASH_PERMUTATIONS: Final = 128
UNDETERMINED: Final = "und"
_MINHASH_SEED: Final = 42
_MINHASH_CHARS: Final = 2**20
_SHINGLE_WORDS: Final = 5
_LANGUAGE_CHARS: Final = 4_000
_LANGUAGE_LETTERS_MIN: Final = 20
_CONTROLS_PER_MILLE_MAX: Final = 1
# UTF-32 before UTF-16: the little-endian mark of the one begins with that of the other.
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# C0 but tab, line feed, vertical tab, form feed and carriage return; DEL; C1 but NEL.
_CONTROLS: Final = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_LINE_ENDS: Final = re.compile("\r\n?|\x85|\u2028")
_WORDS: Final = re.compile(r"\w+")
_SPACE: Final = re.compile(r"\s")

TEXTS: Final = Table(
    name="texts",
    description="One row per text: NFC, line feeds as line ends, with its language and a MinHash of its 5-word shingles.",
    schema=pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("sha256", pa.string(), nullable=False),
            pa.field("bytes", pa.int64(), nullable=False),
            pa.field("encoding", pa.string(), nullable=False),
            pa.field("language", pa.string(), nullable=False),
            pa.field("chars", pa.int64(), nullable=False),
            pa.field("lines", pa.int64(), nullable=False),
            pa.field("paragraphs", pa.int64(), nullable=False),
            pa.field("minhash", pa.list_(pa.uint32()), nullable=False),
            pa.field("text", pa.string(), nullable=False),
        ]
    ),
    dictionary=("encoding", "language"),
)
CHUNKS: Final = Table(
    name="chunks",
    description="Consecutive paragraphs of a text, at most 2,000 characters; start and end count its characters.",
    schema=pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("sha256", pa.string(), nullable=False),
            pa.field("chunk", pa.int32(), nullable=False),
            pa.field("start", pa.int64(), nullable=False),
            pa.field("end", pa.int64(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
        ]
    ),
    dictionary=("key", "sha256"),
)
TABLES: Final = (CHUNKS, TEXTS)

Span = tuple[int, int]


def work(source: FetchedObject, sha256: str, limits: Limits) -> dict[str, list[dict[str, Any]]]:
    """Return a row of `texts` and the rows of its `chunks`.

    Raises:
        Rejected: `TEXT_UNDECODABLE`, `OBJECT_UNSUPPORTED` (a binary format), `OBJECT_TOO_LARGE`.
    """
    kind = sniff(source.data)
    if kind is not None:
        raise Rejected(Code.OBJECT_UNSUPPORTED, f"{kind} is not text")
    decoded, encoding = decode(source.data)
    text = normalise(decoded, limits)
    spans = list(paragraphs(text))
    row = {
        "key": source.key,
        "sha256": sha256,
        "bytes": len(source.data),
        "encoding": encoding,
        "language": language(text),
        "chars": len(text),
        "lines": text.count("\n"),
        "paragraphs": len(spans),
        "minhash": minhash(text),
        "text": text,
    }
    chunks = [
        {"key": source.key, "sha256": sha256, "chunk": number, "start": start, "end": end, "text": text[start:end]}
        for number, (start, end) in enumerate(chunk_spans(text, spans))
    ]
    return {CHUNKS.name: chunks, TEXTS.name: [row]}


def decode(data: bytes) -> tuple[str, str]:
    """Return the text of some bytes, and the encoding by the name that Python gives it.

    Raises:
        Rejected: `TEXT_UNDECODABLE`.
    """
    marked = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), None)
    if marked:
        return _strictly(data[len(marked[0]) :], marked[1]), marked[1]
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        found = chardet.detect(data)["encoding"]
    if found is None:
        raise Rejected(Code.TEXT_UNDECODABLE, "no encoding fits")
    name = codecs.lookup(found).name
    return _strictly(data, name), name


def _strictly(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, LookupError) as problem:
        raise Rejected(Code.TEXT_UNDECODABLE, f"not valid {encoding}") from problem


def normalise(text: str, limits: Limits) -> str:
    """Return text in NFC with line feeds as line ends.

    Raises:
        Rejected: `TEXT_UNDECODABLE` (control characters), `OBJECT_TOO_LARGE` (characters, or a run of marks).
    """
    if len(text) > limits.text_chars_max:
        raise Rejected(Code.OBJECT_TOO_LARGE, f"{len(text)} characters, {limits.text_chars_max} allowed")
    if "\0" in text or len(_CONTROLS.findall(text)) * 1_000 > _CONTROLS_PER_MILLE_MAX * len(text):
        raise Rejected(Code.TEXT_UNDECODABLE, "decodes to control characters")
    plain = _LINE_ENDS.sub("\n", text)
    if plain.isascii():
        return plain
    if _longest_run(plain) > limits.combining_run_max:
        raise Rejected(Code.OBJECT_TOO_LARGE, f"more than {limits.combining_run_max} combining marks in a row")
    return unicodedata.normalize("NFC", plain)


def _longest_run(text: str) -> int:
    """Return the length of the longest run of combining marks in a text."""
    marks = _combining()[np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)]
    if not marks.any():
        return 0
    others = np.flatnonzero(~marks)
    return int(np.diff(others, prepend=-1, append=len(marks)).max()) - 1


@cache
def _combining() -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return, by code point, whether it is a combining mark (its canonical combining class is not 0)."""
    marks = np.zeros(sys.maxunicode + 1, dtype=np.bool_)
    marks[[point for point in range(sys.maxunicode + 1) if unicodedata.combining(chr(point))]] = True
    return marks


def prepare() -> None:
    """Read the language model and the table of marks, which are otherwise read with the first text."""
    language("The language model is read with the first text that has letters enough.")
    _combining()


def language(text: str) -> str:
    """Return the ISO 639-1 code of a text's language, `und` where there are too few letters to tell."""
    beginning = text[:_LANGUAGE_CHARS]
    if sum(map(str.isalpha, beginning)) < _LANGUAGE_LETTERS_MIN:
        return UNDETERMINED
    return str(py3langid.classify(beginning)[0])


def minhash(text: str) -> list[int]:
    """Return the MinHash of the set of 5-word shingles of the text's first million characters; empty without words."""
    words = _WORDS.findall(text[:_MINHASH_CHARS].lower())
    if not words:
        return []
    last = max(1, len(words) - _SHINGLE_WORDS + 1)
    signature = RMinHash(num_perm=MINHASH_PERMUTATIONS, seed=_MINHASH_SEED)
    signature.update(list({" ".join(words[i : i + _SHINGLE_WORDS]) for i in range(last)}))
    return [int(value) for value in signature.digest()]


def paragraphs(text: str) -> Iterator[Span]:
    """Yield the spans of paragraphs: lines that are not blank, without a blank line between them."""
    start, end, place = -1, 0, 0
    for line in text.split("\n"):
        if line and not line.isspace():
            start = place if start < 0 else start
            end = place + len(line)
        elif start >= 0:
            yield start, end
            start = -1
        place += len(line) + 1
    if start >= 0:
        yield start, end


def chunk_spans(text: str, spans: Iterable[Span]) -> Iterator[Span]:
    """Yield the spans of chunks: as many whole paragraphs as fit, and over-long paragraphs in pieces."""
    start = end = -1
    for first, last in (piece for span in spans for piece in _pieces(text, span)):
        if start >= 0 and last - start > CHUNK_CHARS_MAX:
            yield start, end
            start = first
        start, end = (first if start < 0 else start), last
    if start >= 0:
        yield start, end


def _pieces(text: str, span: Span) -> Iterator[Span]:
    """Cut a paragraph at the last space that fits; a word longer than a chunk is cut where the chunk ends."""
    start, end = span
    while end - start > CHUNK_CHARS_MAX:
        window = text[start : start + CHUNK_CHARS_MAX]
        space = max((found.start() for found in _SPACE.finditer(window)), default=0)
        cut = start + (space or CHUNK_CHARS_MAX)
        yield start, cut
        start = cut + (1 if space else 0)
    if start < end:
        yield start, end
