"""Made-up archives: the same seed, the same bytes; good files decode, and spoiled ones do not."""

from __future__ import annotations

import hashlib
import io
import re

import pypdfium2
import pytest
from PIL import Image

from flux_devkit.synthetic import Recipe, SyntheticFile, generate

RECIPE = Recipe(seed=7, texts=60, pictures=60, documents=60, spoiled_ratio=0.25)


def test_the_same_seed_makes_the_same_bytes_everywhere() -> None:
    """The digest is written down: neither a library's version nor the machine changes a byte."""
    digest = hashlib.sha256()
    for file in generate(RECIPE):
        digest.update(file.path.encode() + b"\0" + hashlib.sha256(file.content).digest())

    assert digest.hexdigest() == "1dfd4cba23125c6f67d77b84551f498047419ff40fe2ae184361327c832c7235"


def test_another_seed_makes_other_bytes() -> None:
    """No file is equal."""
    first = {file.path: file.content for file in generate(Recipe(1, 5, 5, 5))}
    second = {file.path: file.content for file in generate(Recipe(2, 5, 5, 5))}

    assert [path for path in first if first[path] == second[path]] == []


def test_a_larger_archive_begins_with_a_smaller_ones_files() -> None:
    """A file depends on the seed and its number alone."""
    small = {file.path: file.content for file in generate(Recipe(3, 4, 4, 4))}
    large = {file.path: file.content for file in generate(Recipe(3, 9, 9, 9))}

    assert small.items() <= large.items()


@pytest.mark.parametrize("kind", ["txt", "png", "pdf"])
def test_exactly_the_spoiled_files_cannot_be_decoded(kind: str) -> None:
    """Judged by the decoders that the transforms use, not by this package."""
    files = [file for file in generate(RECIPE) if file.path.startswith(kind)]
    undecodable = {file.path for file in files if not decodes(file)}
    spoiled = {file.path for file in files if file.spoiled}

    assert undecodable == spoiled
    assert 5 <= len(spoiled) <= 30


def test_without_a_ratio_nothing_is_spoiled() -> None:
    """The default is an archive of good files."""
    assert [file.path for file in generate(Recipe(7, 20, 20, 20)) if file.spoiled] == []


def test_a_thousand_files_share_a_folder() -> None:
    """No folder grows without bound."""
    paths = [file.path for file in generate(Recipe(texts=1001))]

    assert (paths[0], paths[-1]) == ("txt/0000/0000000.txt", "txt/0001/0001000.txt")


def decodes(file: SyntheticFile) -> bool:
    try:
        if file.path.endswith(".txt"):
            return len(file.content) > 0 and not re.search("[\x00-\x08]", file.content.decode())
        if file.path.endswith(".png"):
            with Image.open(io.BytesIO(file.content)) as picture:
                picture.load()
                return picture.format == "PNG"
        with pypdfium2.PdfDocument(file.content) as document:
            return len(document) == 1
    except (UnicodeDecodeError, OSError, SyntaxError, pypdfium2.PdfiumError):
        return False
