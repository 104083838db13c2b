"""Made-up archives of any size for load tests: the same seed makes the same files.

Theory. Each file depends on the seed and its own number alone, so a larger archive begins with a smaller one's
files. Texts, pictures (PNG) and documents (PDF) are small and valid, written by hand from their specifications
(PNG: ISO/IEC 15948; PDF 1.4), so that no library's version changes a byte. A given share is spoiled in ways that a
decoder meets in real archives (cut short, a flipped bit, an empty file, a foreign head, control characters);
`Written` names those, and a transform must reject exactly them.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

FILES_PER_FOLDER = 1000
VOCABULARY = (
    "archive record letter survey ledger harbour parish census voyage treaty senate railway orchard lantern winter "
    "garden station council harvest granite meadow village captain engine bridge silver copper timber river valley"
)
WORDS = tuple(VOCABULARY.split())


@dataclass(frozen=True)
class Recipe:
    """How many files of each kind, and which share of them (0 to 1) is spoiled."""

    seed: int = 0
    texts: int = 0
    pictures: int = 0
    documents: int = 0
    spoiled_ratio: float = 0.0


@dataclass(frozen=True)
class Written:
    """What was written: paths relative to the folder, in order, and the spoiled ones among them."""

    files: tuple[str, ...]
    spoiled: frozenset[str]
    bytes_total: int


@dataclass(frozen=True)
class SyntheticFile:
    """One file: its relative path, its bytes, and whether no honest decoder can read it."""

    path: str
    content: bytes
    spoiled: bool


def write(recipe: Recipe, folder: Path) -> Written:
    """Write the archive below a folder."""
    files, spoiled, total = [], set(), 0
    for file in generate(recipe):
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        files.append(file.path)
        total += len(file.content)
        if file.spoiled:
            spoiled.add(file.path)
    return Written(tuple(sorted(files)), frozenset(spoiled), total)


def generate(recipe: Recipe) -> Iterator[SyntheticFile]:
    """The archive's files, one at a time."""
    for kind, count, make, spoil in (
        ("txt", recipe.texts, text, spoil_text),
        ("png", recipe.pictures, picture, spoil_picture),
        ("pdf", recipe.documents, document, spoil_document),
    ):
        for number in range(count):
            yield _file(recipe, kind, number, make, spoil)


def _file(recipe: Recipe, kind: str, number: int, make: Maker, spoil: Spoiler) -> SyntheticFile:
    source = random.Random(f"{recipe.seed}/{kind}/{number}")
    content = make(source)
    spoiled = source.random() < recipe.spoiled_ratio
    path = f"{kind}/{number // FILES_PER_FOLDER:04d}/{number:07d}.{kind}"
    return SyntheticFile(path, spoil(source, content) if spoiled else content, spoiled)


Maker = Callable[[random.Random], bytes]
Spoiler = Callable[[random.Random, bytes], bytes]


def text(source: random.Random) -> bytes:
    """Some paragraphs of plain words."""
    return "\n\n".join(_paragraph(source) for _ in range(source.randint(1, 4))).encode() + b"\n"


def picture(source: random.Random) -> bytes:
    """A PNG of 16 to 64 pixels a side, 8-bit RGB, a gradient between random colours."""
    width, height = source.randint(16, 64), source.randint(16, 64)
    top, bottom = source.randbytes(3), source.randbytes(3)
    rows = []
    for y in range(height):
        colour = bytes((a * (height - y) + b * y) // height for a, b in zip(top, bottom, strict=True))
        rows.append(b"\x00" + colour * width)  # filter type 0: none
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = _stored(b"".join(rows))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def document(source: random.Random) -> bytes:
    """A PDF of one page with a few lines of text."""
    lines = [" ".join(source.choices(WORDS, k=8)) for _ in range(source.randint(3, 12))]
    page = "BT /F1 12 Tf 72 720 Td 14 TL " + " ".join(f"({line}) Tj T*" for line in lines) + " ET"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        "/Resources << /Font << /F1 5 0 R >> >> >>",
        f"<< /Length {len(page)} >>\nstream\n{page}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    return _pdf(objects)


def spoil_text(source: random.Random, content: bytes) -> bytes:
    """Compressed under a text's name, empty, or full of control characters: each passes some detector of encodings."""
    controls = bytes(source.randrange(1, 9) for _ in range(40))
    return source.choice([b"\x1f\x8b\x08\x00" + _stored(content), b"", controls + content])


def spoil_picture(source: random.Random, content: bytes) -> bytes:
    """Cut short, empty, without its head, or with a flipped bit in the header (its CRC tells)."""
    flipped = bytearray(content)
    flipped[18] ^= 0x40
    return source.choice([content[: len(content) // 3], b"", b"GIF8" + content[4:], bytes(flipped)])


def spoil_document(source: random.Random, content: bytes) -> bytes:
    """Cut short before any page, empty, or without its head and its catalogue."""
    return source.choice([content[:20], b"", b"%!PS-Adobe\n" + source.randbytes(200)])


def _paragraph(source: random.Random) -> str:
    sentences = (" ".join(source.choices(WORDS, k=source.randint(5, 14))) for _ in range(source.randint(2, 8)))
    return " ".join(f"{sentence.capitalize()}." for sentence in sentences)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _stored(content: bytes) -> bytes:
    """A zlib stream of stored blocks (RFC 1950, RFC 1951): the same bytes whatever zlib is linked."""
    blocks = [content[start : start + 0xFFFF] for start in range(0, len(content), 0xFFFF)]
    body = b"".join(
        struct.pack("<BHH", number == len(blocks) - 1, len(block), len(block) ^ 0xFFFF) + block
        for number, block in enumerate(blocks)
    )
    return b"\x78\x01" + body + struct.pack(">I", zlib.adler32(content))


def _pdf(objects: list[str]) -> bytes:
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{offset:010d} 00000 n \n".encode() for offset in offsets)
    out += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n".encode()
    return bytes(out)
