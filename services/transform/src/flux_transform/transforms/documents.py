"""Documents for research: text per page, page count, outline. PDF through PDFium, DOCX through python-docx.

PDFium is C++ and meets hostile files here; it runs in a process that may die. The checks before it are the sizes a ZIP
declares (a DOCX unfolds), the number of pages and the amount of text.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, Final

import docx
import pyarrow as pa
import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_raw
from docx.exceptions import PythonDocxError
from docx.opc.exceptions import OpcError
from docx.table import Table as DocxTable

from flux_common.kernel.codes import Code
from flux_transform.domain import media
from flux_transform.domain.failures import Rejected
from flux_transform.domain.limits import Limits
from flux_transform.ports import FetchedObject
from flux_transform.transforms.parquet import Table
from flux_transform.transforms.signatures import sniff

# zlib's own figure for the most that deflate can compress (zlib.net, "Maximum Compression Factor").
_DEFLATE_RATIO_MAX: Final = 1_032
_UNFOLD_STEP_BYTES: Final = 2**20
_STREAM: Final = re.compile(rb"(?<!end)stream\r?\n")
_OUTLINE_ENTRIES_MAX: Final = 10_000
_ZIP_MEMBERS_MAX: Final = 10_000
_METADATA_CHARS_MAX: Final = 1_024
# NUL, and the marks that PDFium leaves for hyphens at line ends and for characters without a Unicode value.
_UNWANTED: Final = str.maketrans("", "", "\x00\x02\ufffe\uffff")
_DECODER_ERRORS: Final = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    OpcError,
    PythonDocxError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)

DOCUMENTS: Final = Table(
    name="documents",
    description="One row per document: format, page count, outline, metadata, checksum of the original.",
    schema=pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("sha256", pa.string(), nullable=False),
            pa.field("bytes", pa.int64(), nullable=False),
            pa.field("format", pa.string(), nullable=False),
            pa.field("pages", pa.int32(), nullable=False),
            pa.field("chars", pa.int64(), nullable=False),
            pa.field("title", pa.string()),
            pa.field("author", pa.string()),
            pa.field("metadata", pa.string(), nullable=False),
            pa.field(
                "outline",
                pa.list_(pa.struct([("level", pa.int32()), ("title", pa.string()), ("page", pa.int32())])),
                nullable=False,
            ),
        ]
    ),
    dictionary=("format",),
)
PAGES: Final = Table(
    name="pages",
    description="One row per page (a DOCX has one): its text.",
    schema=pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("sha256", pa.string(), nullable=False),
            pa.field("page", pa.int32(), nullable=False),
            pa.field("chars", pa.int64(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
        ]
    ),
    dictionary=("key", "sha256"),
)
TABLES: Final = (DOCUMENTS, PAGES)

Outline = list[dict[str, Any]]


def work(source: FetchedObject, sha256: str, limits: Limits) -> dict[str, list[dict[str, Any]]]:
    """Return a row of `documents` and the rows of its `pages`.

    Raises:
        Rejected: `OBJECT_UNSUPPORTED`, `OBJECT_CORRUPT`, `OBJECT_ENCRYPTED`, `OBJECT_TOO_LARGE`.
    """
    kind = sniff(source.data)
    if kind == media.PDF:
        return _rows(source, sha256, "PDF", _pdf(source.data, limits))
    if kind == media.DOCX:
        return _rows(source, sha256, "DOCX", _docx(source.data, limits))
    raise Rejected(Code.OBJECT_UNSUPPORTED, f"{kind or 'no known signature'}: neither PDF nor DOCX")


class Document:
    """What was read of a document."""

    def __init__(self, pages: list[str], outline: Outline, metadata: dict[str, str]) -> None:
        self.pages, self.outline, self.metadata = pages, outline, metadata


def _rows(source: FetchedObject, sha256: str, form: str, read: Document) -> dict[str, list[dict[str, Any]]]:
    document = {
        "key": source.key,
        "sha256": sha256,
        "bytes": len(source.data),
        "format": form,
        "pages": len(read.pages),
        "chars": sum(len(text) for text in read.pages),
        "title": read.metadata.get("Title"),
        "author": read.metadata.get("Author"),
        "metadata": json.dumps(read.metadata, sort_keys=True),
        "outline": read.outline,
    }
    pages = [
        {"key": source.key, "sha256": sha256, "page": number, "chars": len(text), "text": text}
        for number, text in enumerate(read.pages, start=1)
    ]
    return {DOCUMENTS.name: [document], PAGES.name: pages}


def _clean(text: str) -> str:
    """Return text with plain line ends and without what no text may hold (lone surrogates included)."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n").translate(_UNWANTED)
    return plain.encode("utf-8", "ignore").decode()


def _within(pages: Iterator[str], limits: Limits) -> list[str]:
    """Collect page texts up to the limit on characters."""
    kept, chars = [], 0
    for text in pages:
        chars += len(text)
        if chars > limits.text_chars_max:
            raise Rejected(Code.OBJECT_TOO_LARGE, f"more than {limits.text_chars_max} characters of text")
        kept.append(text)
    return kept


def _known(metadata: dict[str, Any]) -> dict[str, str]:
    """Keep metadata that says something, cut to a bounded length."""
    shown = {name: _clean(str(value)).strip()[:_METADATA_CHARS_MAX] for name, value in metadata.items() if value}
    return {name: value for name, value in shown.items() if value}


def _pdf(data: bytes, limits: Limits) -> Document:
    _check_streams(data, limits)
    try:
        document = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as problem:
        raise _pdf_reject(problem) from problem
    try:
        if len(document) > limits.document_pages_max:
            raise Rejected(Code.OBJECT_TOO_LARGE, f"{len(document)} pages, {limits.document_pages_max} allowed")
        pages = _within((_pdf_page(document, index) for index in range(len(document))), limits)
        return Document(pages, list(_pdf_outline(document)), _known(document.get_metadata_dict()))
    except (pdfium.PdfiumError, *_DECODER_ERRORS) as problem:
        raise Rejected(Code.OBJECT_CORRUPT, f"the PDF cannot be read ({type(problem).__name__})") from problem
    finally:
        document.close()


def _check_streams(data: bytes, limits: Limits) -> None:
    """Refuse a PDF with a deflated stream that unfolds beyond the limit; only streams long enough to are unfolded."""
    shortest = limits.unfolded_bytes_max // _DEFLATE_RATIO_MAX
    if len(data) <= shortest:
        return
    for found in _STREAM.finditer(data):
        end = data.find(b"endstream", found.end())
        end = len(data) if end < 0 else end
        if end - found.end() > shortest and _unfolds_beyond(memoryview(data)[found.end() : end], limits):
            detail = f"a stream unfolds to more than {limits.unfolded_bytes_max} bytes"
            raise Rejected(Code.OBJECT_TOO_LARGE, detail)


def _unfolds_beyond(stream: memoryview, limits: Limits) -> bool:
    """Return whether deflated data is longer than the limit; what is not deflated is not."""
    unfolder, total = zlib.decompressobj(), 0
    try:
        rest: bytes | memoryview = stream
        while rest and not unfolder.eof and total <= limits.unfolded_bytes_max:
            total += len(unfolder.decompress(rest, _UNFOLD_STEP_BYTES))
            rest = unfolder.unconsumed_tail
    except zlib.error:
        return False
    return total > limits.unfolded_bytes_max


def _pdf_reject(problem: pdfium.PdfiumError) -> Rejected:
    if getattr(problem, "err_code", None) in {pdfium_raw.FPDF_ERR_PASSWORD, pdfium_raw.FPDF_ERR_SECURITY}:
        return Rejected(Code.OBJECT_ENCRYPTED, "the PDF needs a password")
    return Rejected(Code.OBJECT_CORRUPT, "PDFium cannot open it")


def _pdf_page(document: pdfium.PdfDocument, index: int) -> str:
    page = document[index]
    text = page.get_textpage()
    try:
        return _clean(text.get_text_range())
    finally:
        text.close()
        page.close()


def _pdf_outline(document: pdfium.PdfDocument) -> Iterator[dict[str, Any]]:
    """Yield the outline's entries; pages count from 1, and an entry that leads nowhere has none."""
    for count, entry in enumerate(document.get_toc(), start=1):
        if count > _OUTLINE_ENTRIES_MAX:
            return
        target = entry.get_dest()
        index = target.get_index() if target is not None else None
        title = _clean(entry.get_title())[:_METADATA_CHARS_MAX]
        yield {"level": entry.level, "title": title, "page": None if index is None else index + 1}


def _docx(data: bytes, limits: Limits) -> Document:
    try:
        _check_zip(data, limits)
        document = docx.Document(io.BytesIO(data))
        blocks = _within(_docx_blocks(document), limits)
        properties = document.core_properties
        metadata = _known({"Title": properties.title, "Author": properties.author, "Language": properties.language})
        return Document(["\n".join(blocks)], list(_docx_outline(document)), metadata)
    except _DECODER_ERRORS as problem:
        raise Rejected(Code.OBJECT_CORRUPT, f"the DOCX cannot be read ({type(problem).__name__})") from problem


def _check_zip(data: bytes, limits: Limits) -> None:
    """Refuse a ZIP for what it says it unfolds to; `zipfile` reads no member beyond its declared size."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
    if any(member.flag_bits & 0x1 for member in members):
        raise Rejected(Code.OBJECT_ENCRYPTED, "the DOCX has encrypted members")
    unfolded = sum(member.file_size for member in members)
    if unfolded > limits.unfolded_bytes_max or len(members) > _ZIP_MEMBERS_MAX:
        raise Rejected(Code.OBJECT_TOO_LARGE, f"unfolds to {unfolded} bytes in {len(members)} members")


def _docx_blocks(document: Any) -> Iterator[str]:
    """Yield paragraphs and table rows in the order of the document."""
    for block in document.iter_inner_content():
        if isinstance(block, DocxTable):
            for row in block.rows:
                yield _clean("\t".join(cell.text for cell in row.cells))
        else:
            yield _clean(block.text)


def _docx_outline(document: Any) -> Iterator[dict[str, Any]]:
    """Yield headings, by the names that Word gives their styles in its files in every language."""
    for paragraph in document.paragraphs[:_OUTLINE_ENTRIES_MAX]:
        name = paragraph.style.name if paragraph.style is not None else ""
        if name and name.startswith("Heading ") and name[8:].isdecimal():
            title = _clean(paragraph.text)[:_METADATA_CHARS_MAX]
            yield {"level": int(name[8:]) - 1, "title": title, "page": None}
