"""What an object is, by its first bytes."""

from __future__ import annotations

import gzip
import io
import zipfile

import pytest
from PIL import Image

from flux_transform.domain.media import DOCX, ODT, PDF
from flux_transform.transforms.signatures import sniff


def image(form: str) -> bytes:
    """Return a small image file."""
    sink = io.BytesIO()
    Image.new("RGB", (3, 2)).save(sink, form)
    return sink.getvalue()


def archive(*members: str) -> bytes:
    """Return a ZIP with members of these names."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        for member in members:
            content = ODT if member == "mimetype" else "x"
            file.writestr(member, content)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("JPEG", "image/jpeg"),
        ("PNG", "image/png"),
        ("TIFF", "image/tiff"),
        ("GIF", "image/gif"),
        ("BMP", "image/bmp"),
        ("WEBP", "image/webp"),
        ("JPEG2000", "image/jp2"),
    ],
)
def test_images_are_known_by_what_an_encoder_writes(form: str, expected: str) -> None:
    """Every format that the image transform reads has its signature here."""
    assert sniff(image(form)) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"%PDF-1.7\n", PDF),
        (b"\n" * 1000 + b"%PDF-1.4", PDF),
        (gzip.compress(b"text"), "application/gzip"),
        (archive("[Content_Types].xml", "word/document.xml"), DOCX),
        (archive("mimetype", "content.xml"), ODT),
        (archive("a.txt"), "application/zip"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "audio/wav"),
        (b"\xff\xfb\x90\x64" + b"\0" * 100, "audio/mpeg"),
        (b"\xff\xf1\x50\x80", "audio/aac"),
    ],
)
def test_other_formats(data: bytes, expected: str) -> None:
    """Documents, archives and media are told apart without their names."""
    assert sniff(data) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"Plain text",
        b"BMW is no bitmap",
        b"\xff\xfeh\x00i\x00",
        "Grüße".encode("cp1252"),
        b"# %PDF is a word here too, but without the dash",
    ],
)
def test_text_has_no_signature(data: bytes) -> None:
    """Text, marked UTF-16 included, is left to the text transform."""
    assert sniff(data) is None
