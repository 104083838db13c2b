"""Mixed archives are routed by content."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from flux_common.kernel.codes import Code
from flux_transform.domain.failures import Rejected
from flux_transform.domain.limits import DEFAULT_LIMITS
from flux_transform.ports import FetchedObject
from flux_transform.transforms import mixed


def test_the_first_bytes_decide_not_the_name() -> None:
    """A PNG called .txt is an image, a text called .png is a text."""
    sink = io.BytesIO()
    Image.new("RGB", (4, 4)).save(sink, "PNG")

    image = mixed.work(FetchedObject("a.txt", "text/plain", sink.getvalue()), "0" * 64, DEFAULT_LIMITS)
    text = mixed.work(FetchedObject("a.png", "image/png", b"Plain words."), "0" * 64, DEFAULT_LIMITS)

    assert list(image) == ["images"]
    assert list(text) == ["chunks", "texts"]


def test_what_no_transform_reads_is_unsupported() -> None:
    """An archive is not tried as text."""
    with pytest.raises(Rejected) as reject:
        mixed.work(FetchedObject("a.zip", "", b"PK\x03\x04" + b"\0" * 60), "0" * 64, DEFAULT_LIMITS)

    assert reject.value.code == Code.OBJECT_UNSUPPORTED


def test_tables_are_the_union_in_order() -> None:
    """No two transforms write a table of one name."""
    names = [table.name for table in mixed.TABLES]

    assert names == sorted({"images", "documents", "pages", "texts", "chunks"})
