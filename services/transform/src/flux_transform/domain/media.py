"""A media type from a name: a guess for the plan, by one fixed table.

The standard library's `mimetypes` also reads the machine's own tables, so two workers could write two plans of one
source. What an object really is, its first bytes say (`transforms.signatures`).
"""

from __future__ import annotations

from typing import Final

UNKNOWN: Final = "application/octet-stream"
PDF: Final = "application/pdf"
DOCX: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
ODT: Final = "application/vnd.oasis.opendocument.text"

_BY_EXTENSION: Final[dict[str, str]] = {
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "jpe": "image/jpeg",
    "png": "image/png",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "gif": "image/gif",
    "bmp": "image/bmp",
    "webp": "image/webp",
    "jp2": "image/jp2",
    "j2k": "image/jp2",
    "psd": "image/vnd.adobe.photoshop",
    "pdf": PDF,
    "docx": DOCX,
    "odt": ODT,
    "doc": "application/msword",
    "rtf": "application/rtf",
    "txt": "text/plain",
    "text": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "html": "text/html",
    "htm": "text/html",
    "xhtml": "application/xhtml+xml",
    "xml": "application/xml",
    "json": "application/json",
    "zip": "application/zip",
    "gz": "application/gzip",
    "zst": "application/zstd",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "mp4": "video/mp4",
    "mov": "video/quicktime",
}


def guess(key: str) -> str:
    """Return the media type that the key's extension suggests, or `application/octet-stream`."""
    name = key.rsplit("/", 1)[-1]
    extension = name.rsplit(".", 1)[-1].lower() if "." in name else ""
    return _BY_EXTENSION.get(extension, UNKNOWN)
