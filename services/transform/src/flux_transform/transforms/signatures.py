"""What an object is, by its first bytes. A name is never enough, and never a reason to refuse.

The table is our own, so the verdict does not change with a machine's magic database. It knows what the transforms read,
and enough of what they do not read to keep it away from the text detector, which would find some encoding for anything.
Sources: the formats' specifications (PNG, JPEG/JFIF, TIFF 6.0, GIF89a, WebP, PDF 1.7, APPNOTE, RFC 1952, RFC 8878 …).
"""

from __future__ import annotations

from typing import Final

from flux_transform.domain.media import DOCX, ODT, PDF

IMAGE_TYPES: Final = frozenset(
    {"image/jpeg", "image/png", "image/tiff", "image/gif", "image/bmp", "image/webp", "image/jp2"}
)
DOCUMENT_TYPES: Final = frozenset({PDF, DOCX})

# (offset, bytes, media type); the first that fits wins.
_SIGNATURES: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (0, b"II+\x00", "image/tiff"),
    (0, b"MM\x00+", "image/tiff"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (0, b"\x00\x00\x00\x0cjP  \r\n\x87\n", "image/jp2"),
    (0, b"\xff\x4f\xff\x51", "image/jp2"),
    (0, b"8BPS", "image/vnd.adobe.photoshop"),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"\x28\xb5\x2f\xfd", "application/zstd"),
    (0, b"BZh", "application/x-bzip2"),
    (0, b"\xfd7zXZ\x00", "application/x-xz"),
    (0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (0, b"Rar!\x1a\x07", "application/vnd.rar"),
    (257, b"ustar", "application/x-tar"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (0, b"{\\rtf", "application/rtf"),
    (0, b"%!PS", "application/postscript"),
    (0, b"SQLite format 3\x00", "application/vnd.sqlite3"),
    (60, b"BOOKMOBI", "application/x-mobipocket-ebook"),
    (0, b"\x7fELF", "application/x-executable"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"OggS", "application/ogg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"wvpk", "audio/x-wavpack"),
    (0, b"\x0b\x77", "audio/ac3"),
    (0, b"FORM", "audio/aiff"),
    (4, b"ftyp", "video/mp4"),
    (4, b"moov", "video/quicktime"),
    (4, b"mdat", "video/quicktime"),
    (4, b"wide", "video/quicktime"),
    (0, b"\x1aE\xdf\xa3", "video/x-matroska"),
    (0, b"FLV\x01", "video/x-flv"),
    (0, b"CWS", "application/x-shockwave-flash"),
    (0, b"FWS", "application/x-shockwave-flash"),
    (0, b"\x00\x00\x01\xba", "video/mpeg"),
    (0, b"\x00\x00\x01\xb3", "video/mpeg"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video/x-ms-asf"),
    (0, b".RMF", "application/vnd.rn-realmedia"),
    (0, b"PAR1", "application/vnd.apache.parquet"),
)
_RIFF: Final = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
_ZIP_MEMBERS: Final = (
    (b"word/document.xml", DOCX),
    (b"xl/workbook.xml", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    (b"ppt/presentation.xml", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
)
# PDF 1.7, Annex H.3.4.1: readers accept the header anywhere in the first 1,024 bytes.
_PDF_HEADER_BYTES: Final = 1_024


def sniff(data: bytes) -> str | None:
    """Return the media type that the bytes themselves show, or None where nothing is recognised (text, mostly)."""
    for offset, magic, media_type in _SIGNATURES:
        if data.startswith(magic, offset):
            return media_type
    if data[:4] == b"RIFF":
        return _RIFF.get(bytes(data[8:12]), "application/x-riff")
    if data[:4] in {b"PK\x03\x04", b"PK\x05\x06"}:
        return _zip_kind(data)
    if data[:2] == b"BM" and data[6:10] == b"\x00\x00\x00\x00":
        return "image/bmp"
    if b"%PDF-" in data[:_PDF_HEADER_BYTES]:
        return PDF
    return _mpeg_audio(data)


def _zip_kind(data: bytes) -> str:
    """Tell what a ZIP holds: OpenDocument and EPUB name it in their first member, OOXML by its members' names."""
    if data.startswith(b"mimetype", 30):
        declared = data[38:120]
        if declared.startswith(ODT.encode()):
            return ODT
        return "application/epub+zip" if declared.startswith(b"application/epub+zip") else "application/zip"
    return next((kind for member, kind in _ZIP_MEMBERS if member in data), "application/zip")


def _mpeg_audio(data: bytes) -> str | None:
    """MPEG audio has no magic but eleven set bits; layer and bit rate must be legal (ISO/IEC 11172-3, 13818-7)."""
    if len(data) < 4 or data[0] != 0xFF or data[1] & 0xE0 != 0xE0:
        return None
    if data[1] & 0xF6 == 0xF0:
        return "audio/aac"
    legal = data[1] & 0x06 != 0 and data[1] & 0x18 != 0x08 and data[2] & 0xF0 not in {0x00, 0xF0}
    # FF FE is the byte order mark of UTF-16, and so never audio.
    return "audio/mpeg" if legal and data[1] != 0xFE else None
