"""One image in, rows out."""

from __future__ import annotations

import io
import json
import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flux_common.kernel.codes import Code
from flux_transform.domain.failures import Rejected
from flux_transform.domain.limits import DEFAULT_LIMITS, Limits
from flux_transform.ports import FetchedObject
from flux_transform.transforms import images

SHA = "0" * 64


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """Return an image file."""
    sink = io.BytesIO()
    image.save(sink, form, **options)
    return sink.getvalue()


def rows(data: bytes, limits: Limits = DEFAULT_LIMITS) -> list[dict[str, Any]]:
    """Return the rows of an image file."""
    return images.work(FetchedObject("box/a", "image/png", data), SHA, limits)["images"]


def opened(row: dict[str, Any]) -> Image.Image:
    """Return the picture in a row."""
    return Image.open(io.BytesIO(row["image"]["bytes"]))


def code(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Code:
    """Return the code with which an image is rejected."""
    with pytest.raises(Rejected) as reject:
        rows(data, limits)
    return reject.value.code


def png_header(width: int, height: int, pixels: bytes) -> bytes:
    """Return a PNG that claims a size and holds whatever pixel data."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_ends_upright(orientation: int) -> None:
    """The same scene stored in all eight orientations has its red corner at the top left, and its upright size."""
    scene = Image.new("RGB", (60, 40), "white")
    scene.paste("red", (0, 0, 20, 20))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Transpose members that store the scene turned
    stored = scene.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else scene
    exif = Image.Exif()
    exif[0x0112] = orientation

    row = rows(encoded(stored, "JPEG", quality=95, exif=exif))[0]

    red = opened(row).getpixel((5, 5))
    assert (row["width"], row["height"], row["orientation"]) == (60, 40, orientation)
    assert isinstance(red, tuple)
    assert red[0] > 200
    assert red[1] < 80


def test_a_large_image_is_shrunk_and_says_its_own_size() -> None:
    """At most 1,024 pixels on the longer edge; width and height are the original's."""
    row = rows(encoded(Image.new("RGB", (3000, 1500))))[0]

    assert opened(row).size == (1024, 512)
    assert (row["width"], row["height"], row["format"], row["mode"]) == (3000, 1500, "PNG", "RGB")


def test_each_page_of_a_tiff_is_a_row_and_an_animation_is_one() -> None:
    """Scanned volumes keep all their pages."""
    pages = [Image.new("L", (10, 10 + n)) for n in range(3)]
    tiff = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    frames = [Image.new("P", (10, 10), n) for n in range(3)]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])

    assert [(row["frame"], row["frames"], row["height"]) for row in rows(tiff)] == [(0, 3, 10), (1, 3, 11), (2, 3, 12)]
    assert [row["frame"] for row in rows(gif)] == [0]


def test_deep_grey_is_scaled_not_clipped() -> None:
    """A 16-bit ramp stays a ramp."""
    ramp = np.linspace(0, 65535, 256 * 10).reshape(10, 256).astype(np.uint16)

    row = rows(encoded(Image.fromarray(ramp)))[0]

    grey = np.asarray(opened(row).convert("L"))
    assert row["mode"] == "I;16"
    assert (int(grey.min()), int(grey.max())) == (0, 255)
    assert 110 < float(grey.mean()) < 145


def test_transparency_becomes_white() -> None:
    """As on paper."""
    row = rows(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0))))[0]

    assert opened(row).getpixel((1, 1)) == (255, 255, 255)


def test_the_hash_sees_likeness() -> None:
    """A shrunk copy has nearly the same hash, a mirrored one another."""
    noise = np.random.default_rng(1).integers(0, 255, (8, 8), dtype=np.uint8)
    scene = Image.fromarray(noise).resize((400, 400), Image.Resampling.BICUBIC)
    hashes = [
        images.dhash(picture) for picture in (scene, scene.resize((120, 120)), scene.transpose(Image.Transpose(0)))
    ]
    original, copy, mirrored = (int(text, 16) for text in hashes)

    assert (original ^ copy).bit_count() <= 4
    assert (original ^ mirrored).bit_count() > 16


def test_metadata_is_json_without_binary() -> None:
    """EXIF by name; what is binary or too long is left out."""
    exif = Image.Exif()
    exif[0x010E] = "A harbour"
    exif[0x927C] = b"\x00" * 100
    exif[0x013B] = "x" * 2000

    found = json.loads(rows(encoded(Image.new("RGB", (4, 4)), "JPEG", exif=exif, dpi=(300, 300)))[0]["metadata"])

    assert found["ImageDescription"] == "A harbour"
    assert "info-dpi" in found
    assert not {"MakerNote", "Artist", "info-exif"} & found.keys()


def test_a_truncated_image_is_corrupt() -> None:
    """Half a picture is no picture."""
    noise = np.random.default_rng(1).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), "PNG"), encoded(Image.fromarray(noise), "JPEG")

    assert [code(data[: len(data) // 2]) for data in whole] == [Code.OBJECT_CORRUPT] * 2


def test_pixels_are_counted_before_they_are_decoded() -> None:
    """A header that claims 400 megapixels is refused without reading a pixel; 250 are within the limit."""
    bomb = png_header(20_000, 20_000, zlib.compress(bytes(1000)))
    small = encoded(Image.new("1", (100, 100)))

    assert code(bomb) == Code.OBJECT_TOO_LARGE
    assert code(small, replace(DEFAULT_LIMITS, image_pixels_max=9_999)) == Code.OBJECT_TOO_LARGE
    assert len(rows(small, replace(DEFAULT_LIMITS, image_pixels_max=10_000))) == 1


def test_what_is_no_image_is_unsupported_and_what_begins_like_one_corrupt() -> None:
    """The code tells a wrong file from a broken one; EPS never reaches a decoder."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"

    assert code(b"hello") == Code.OBJECT_UNSUPPORTED
    assert code(eps) == Code.OBJECT_UNSUPPORTED
    assert code(b"II*\x00" + b"\xff" * 100) == Code.OBJECT_CORRUPT
