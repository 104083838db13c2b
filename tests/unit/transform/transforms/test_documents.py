"""One document in, a row and its pages out."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import replace
from typing import Any

import docx
import pypdfium2 as pdfium
import pytest

from flux_common.kernel.codes import Code
from flux_transform.domain.failures import Rejected
from flux_transform.domain.limits import DEFAULT_LIMITS, Limits
from flux_transform.ports import FetchedObject
from flux_transform.transforms import documents

SHA = "0" * 64


def pdf(content: bytes, *, filtered: bool = False) -> bytes:
    """Return a one-page PDF with this content stream."""
    stream = zlib.compress(content, 1) if filtered else content
    extra = b"/Filter/FlateDecode" if filtered else b""
    parts = [
        b"%PDF-1.4\n",
        b"1 0 obj<</Type/Catalog/Pages 2 0 R/Outlines 6 0 R>>endobj\n",
        b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n",
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Contents 4 0 R",
        b"/Resources<</Font<</F 5 0 R>>>>>>endobj\n",
        b"4 0 obj<</Length " + str(len(stream)).encode() + extra + b">>stream\n" + stream + b"\nendstream endobj\n",
        b"5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj\n",
        b"6 0 obj<</Type/Outlines/First 7 0 R/Last 7 0 R/Count 1>>endobj\n",
        b"7 0 obj<</Title(Chapter One)/Parent 6 0 R/Dest[3 0 R/Fit]>>endobj\n",
        b"trailer<</Root 1 0 R>>\n%%EOF",
    ]
    return b"".join(parts)


def word(*, heading: str = "Opening", body: str = "Call me Ishmael.") -> bytes:
    """Return a DOCX with a heading, a paragraph and a table."""
    document = docx.Document()
    document.core_properties.title = "Moby-Dick"
    document.add_heading(heading, level=1)
    document.add_paragraph(body)
    table = document.add_table(rows=1, cols=2)
    table.cell(0, 0).text, table.cell(0, 1).text = "left", "right"
    sink = io.BytesIO()
    document.save(sink)
    return sink.getvalue()


def work(data: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the row of the document, and its pages."""
    rows = documents.work(FetchedObject("a", "", data), SHA, limits)
    return rows["documents"][0], rows["pages"]


def code(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Code:
    """Return the code with which a document is rejected."""
    with pytest.raises(Rejected) as reject:
        work(data, limits)
    return reject.value.code


HELLO = b"BT /F 12 Tf 20 100 Td (Hello archive) Tj ET"


def test_a_pdf_gives_its_pages_and_outline() -> None:
    """Text per page, page count, outline with page numbers from 1."""
    row, pages = work(pdf(HELLO))

    assert (row["format"], row["pages"], row["chars"]) == ("PDF", 1, len("Hello archive"))
    assert row["outline"] == [{"level": 0, "title": "Chapter One", "page": 1}]
    assert [(page["page"], page["text"]) for page in pages] == [(1, "Hello archive")]


def test_a_docx_gives_its_text_in_order_and_its_headings() -> None:
    """Paragraphs and tables stand where they stood."""
    row, pages = work(word())

    assert (row["format"], row["pages"], row["title"]) == ("DOCX", 1, "Moby-Dick")
    assert row["outline"] == [{"level": 0, "title": "Opening", "page": None}]
    assert pages[0]["text"] == "Opening\nCall me Ishmael.\nleft\tright"


def test_a_broken_document_is_corrupt() -> None:
    """A header alone is no document, and neither is a ZIP with the right names."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("word/document.xml", "<not closed")

    assert code(b"%PDF-1.4 nonsense") == Code.OBJECT_CORRUPT
    assert code(sink.getvalue()) == Code.OBJECT_CORRUPT


def test_a_truncated_docx_is_corrupt() -> None:
    """A ZIP without its directory cannot be read."""
    data = word()

    assert code(data[: data.index(b"word/document.xml") + 200]) == Code.OBJECT_CORRUPT


def test_what_is_neither_is_unsupported() -> None:
    """The name does not make a document."""
    assert code(b"hello") == Code.OBJECT_UNSUPPORTED


def test_a_page_limit_holds() -> None:
    """Pages are counted before any is read."""
    new = pdfium.PdfDocument.new()
    for _ in range(3):
        new.new_page(10, 10)
    sink = io.BytesIO()
    new.save(sink)

    assert code(sink.getvalue(), replace(DEFAULT_LIMITS, document_pages_max=2)) == Code.OBJECT_TOO_LARGE


def test_a_pdf_bomb_is_refused_before_pdfium_sees_it() -> None:
    """A stream that unfolds beyond the limit is a reject, not a dead process; a shorter one is read."""
    padded = HELLO + b"\n" * 3_000_000

    assert (
        code(pdf(padded, filtered=True), replace(DEFAULT_LIMITS, unfolded_bytes_max=2_000_000)) == Code.OBJECT_TOO_LARGE
    )
    assert work(pdf(padded, filtered=True))[0]["chars"] == len("Hello archive")


def test_a_zip_bomb_is_refused_by_its_declared_sizes() -> None:
    """A DOCX whose members unfold beyond the limit is not opened."""
    data = word(body="x" * 100_000)

    assert code(data, replace(DEFAULT_LIMITS, unfolded_bytes_max=50_000)) == Code.OBJECT_TOO_LARGE


def test_text_has_a_limit() -> None:
    """Characters are counted while pages are read."""
    assert code(word(body="x" * 1_000), replace(DEFAULT_LIMITS, text_chars_max=999)) == Code.OBJECT_TOO_LARGE


def test_an_encrypted_pdf_says_so() -> None:
    """A document that needs a password is told from a broken one."""
    key = b"<" + b"00" * 32 + b">"
    trailer = (
        b"trailer<</Root 1 0 R/ID[<00><00>]/Encrypt<</Filter/Standard/V 1/R 2/P -1/O" + key + b"/U" + key + b">>>>"
    )
    data = pdf(HELLO).replace(b"trailer<</Root 1 0 R>>", trailer)

    assert code(data) == Code.OBJECT_ENCRYPTED
