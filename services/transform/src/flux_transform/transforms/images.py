"""Images for research: what is on them, upright and in RGB, with size, perceptual hash, metadata and checksum.

Limits come before decoding: the pixel count is read from the header and refused above the limit, whatever Pillow would
allow. Only formats in `_FORMATS` are tried, so a stranger's file cannot reach a decoder that runs other programs (EPS)
or is not maintained for hostile input. A picture that ends early is corrupt, never half a picture.
"""

from __future__ import annotations

import io
import json
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from flux_common.kernel.codes import Code
from flux_transform.domain.failures import Rejected
from flux_transform.domain.limits import Limits
from flux_transform.ports import FetchedObject
from flux_transform.transforms.parquet import IMAGE_ROW_GROUP_ROWS, Table
from flux_transform.transforms.signatures import IMAGE_TYPES, sniff

IMAGE_EDGE_MAX: Final = 1_024
_JPEG_QUALITY: Final = 90
_METADATA_CHARS_MAX: Final = 65_536
_VALUE_CHARS_MAX: Final = 1_024
_FORMATS: Final = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")
# What Pillow's decoders raise on files that are not what they say; anything else is a fault of ours and is not caught.
_DECODER_ERRORS: Final = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

# Pillow's own limit warns at 89 and fails at 179 megapixels; ours is checked first and is the only one.
Image.MAX_IMAGE_PIXELS = None
ImageFile.LOAD_TRUNCATED_IMAGES = False

IMAGES: Final = Table(
    name="images",
    description="One row per picture (per page of a TIFF): upright, RGB, at most 1,024 pixels on its longer edge.",
    schema=pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("sha256", pa.string(), nullable=False),
            pa.field("bytes", pa.int64(), nullable=False),
            pa.field("format", pa.string(), nullable=False),
            pa.field("mode", pa.string(), nullable=False),
            pa.field("frame", pa.int32(), nullable=False),
            pa.field("frames", pa.int32(), nullable=False),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("orientation", pa.int32(), nullable=False),
            pa.field("dhash", pa.string(), nullable=False),
            pa.field("metadata", pa.string(), nullable=False),
            pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]), nullable=False),
        ]
    ),
    row_group_rows=IMAGE_ROW_GROUP_ROWS,
    dictionary=("format", "mode"),
    blobs=("image.bytes",),
)
TABLES: Final = (IMAGES,)


def work(source: FetchedObject, sha256: str, limits: Limits) -> dict[str, list[dict[str, Any]]]:
    """Return one row per picture of an image file.

    Raises:
        Rejected: `OBJECT_UNSUPPORTED`, `OBJECT_CORRUPT`, `OBJECT_TOO_LARGE`.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(source.data), formats=_FORMATS) as image:
            return {IMAGES.name: [_row(source, sha256, picture) for picture in _pictures(image, limits)]}
    except UnidentifiedImageError as problem:
        raise _unidentified(source.data) from problem
    except _DECODER_ERRORS as problem:
        raise Rejected(Code.OBJECT_CORRUPT, f"the image cannot be decoded ({type(problem).__name__})") from problem


def _unidentified(data: bytes) -> Rejected:
    """Return the reject of what no decoder takes: corrupt if it begins like an image, else something else."""
    kind = sniff(data)
    if kind in IMAGE_TYPES:
        return Rejected(Code.OBJECT_CORRUPT, f"begins as {kind}, but no decoder takes it")
    return Rejected(Code.OBJECT_UNSUPPORTED, f"{kind or 'no known signature'}: not an image")


def _pictures(image: Image.Image, limits: Limits) -> Iterator[Picture]:
    """Yield a TIFF's pages, or the first frame of anything else, each checked against the pixel limit."""
    frames = int(getattr(image, "n_frames", 1))
    wanted = frames if image.format == "TIFF" else 1
    if wanted > limits.image_frames_max:
        raise Rejected(Code.OBJECT_TOO_LARGE, f"{frames} pages, {limits.image_frames_max} allowed")
    for frame in range(wanted):
        if wanted > 1:
            image.seek(frame)
        if image.width * image.height > limits.image_pixels_max:
            detail = f"{image.width} x {image.height} pixels, {limits.image_pixels_max} allowed"
            raise Rejected(Code.OBJECT_TOO_LARGE, detail)
        yield Picture(image, frame, frames)


class Picture:
    """One picture of a file: facts of the original first, then the upright copy that the dataset holds."""

    def __init__(self, image: Image.Image, frame: int, frames: int) -> None:
        self.frame, self.frames = frame, frames
        self.format, self.mode = str(image.format), image.mode
        self.orientation = _orientation(image)
        turned = self.orientation >= 5
        self.width, self.height = (image.height, image.width) if turned else image.size
        self.metadata = _metadata(image)
        self.upright = _upright(image, self.orientation)


def _row(source: FetchedObject, sha256: str, picture: Picture) -> dict[str, Any]:
    encoded = io.BytesIO()
    picture.upright.save(encoded, "JPEG", quality=_JPEG_QUALITY, subsampling="4:2:0")
    return {
        "key": source.key,
        "sha256": sha256,
        "bytes": len(source.data),
        "format": picture.format,
        "mode": picture.mode,
        "frame": picture.frame,
        "frames": picture.frames,
        "width": picture.width,
        "height": picture.height,
        "orientation": picture.orientation,
        "dhash": dhash(picture.upright),
        "metadata": picture.metadata,
        "image": {"bytes": encoded.getvalue(), "path": f"{sha256}-{picture.frame}.jpg"},
    }


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) where there is none or it is not legal (EXIF 2.32, tag 0x0112)."""
    value = image.getexif().get(ExifTags.Base.Orientation, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return a small upright RGB copy. Shrinking first lets JPEG decode at a fraction of its size."""
    small = _shrinkable(image)
    small.thumbnail((IMAGE_EDGE_MAX, IMAGE_EDGE_MAX), Image.Resampling.HAMMING, reducing_gap=1.0)
    plain = _rgb(_scaled(small) if small.mode in {"I", "F"} else small)
    return plain.transpose(_TURNS[orientation]) if orientation > 1 else plain


_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _shrinkable(image: Image.Image) -> Image.Image:
    """Return what can be shrunk smoothly: palettes and bitmaps cannot, 16-bit grey not by Pillow, a TIFF's page is kept."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "1":
        return image.convert("L")
    if image.mode in {"P", "PA"}:
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image.copy() if image.format == "TIFF" else image


def _scaled(image: Image.Image) -> Image.Image:
    """Scale 32-bit grey to its own range; Pillow's conversion clips all above 255 to white."""
    grey = np.asarray(image)
    low, high = float(np.nanmin(grey)), float(np.nanmax(grey))
    scale = 255.0 / (high - low) if high > low else 0.0
    return Image.fromarray(np.nan_to_num((grey - low) * scale).astype(np.uint8))


def _rgb(image: Image.Image) -> Image.Image:
    """Return RGB; what is transparent becomes white, as on paper."""
    if image.mode == "RGB":
        return image
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def dhash(image: Image.Image) -> str:
    """Return the 64-bit difference hash of an image, as 16 hexadecimal digits: is each of 8 x 8 fields darker than the next?"""
    fields = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX))
    return np.packbits(fields[:, :-1] < fields[:, 1:]).tobytes().hex()


def _metadata(image: Image.Image) -> str:
    """Return embedded metadata as a JSON object: EXIF by tag name, resolution, comments; long values are left out."""
    exif = image.getexif()
    found = {ExifTags.TAGS.get(tag, f"tag-{tag}"): _shown(value) for tag, value in exif.items()}
    found |= {f"info-{name}": _shown(value) for name, value in image.info.items() if isinstance(name, str)}
    known = {name: value for name, value in sorted(found.items()) if value is not None}
    text = json.dumps(known, sort_keys=True, ensure_ascii=True)
    return text if len(text) <= _METADATA_CHARS_MAX else "{}"


def _shown(value: Any) -> str | int | None:
    """Return a metadata value as JSON can hold it; None for binary and over-long ones."""
    if isinstance(value, bool | int):
        return int(value) if abs(int(value)) < 2**53 else None
    if isinstance(value, bytes) or value is None:
        return None
    text = str(value).replace("\0", "").strip()
    return text if text and len(text) <= _VALUE_CHARS_MAX else None
