"""Public corpora: what must parse parses, what must not is refused with a verdict, and canonical JSON is canonical."""

from __future__ import annotations

import gzip
import json
import struct
import tarfile
from pathlib import Path

import pytest

from flux_common.contracts import canonical
from flux_common.contracts.intake import decode, parse
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import ValidationFailed

REFUSED_ON_PURPOSE = {"y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"}
VERDICTS = {Code.JSON_INVALID, Code.JSON_TOO_DEEP, Code.NOT_UTF8}
JCS = ("arrays", "french", "structures", "unicode", "values", "weird")


@pytest.fixture(scope="module")
def cases(corpora: Path) -> dict[str, bytes]:
    """Return the files of JSONTestSuite by name."""
    with tarfile.open(corpora / "json-parsing/test_parsing.tar.gz") as archive:
        return {
            Path(member.name).name: file.read()
            for member in archive
            if member.isfile() and (file := archive.extractfile(member))
        }


def _verdict(data: bytes) -> str | None:
    try:
        decode(data)
    except ValidationFailed as refusal:
        return refusal.code
    return None


def test_what_is_json_is_parsed(cases: dict[str, bytes]) -> None:
    """Every `y_` file is taken with the value Python reads, but for the two with repeated names."""
    taken = {name: data for name, data in cases.items() if name.startswith("y_") and _verdict(data) is None}

    assert {name for name in cases if name.startswith("y_")} - taken.keys() == REFUSED_ON_PURPOSE
    assert [name for name, data in taken.items() if decode(data) != json.loads(data)] == []


def test_what_is_not_json_is_refused(cases: dict[str, bytes]) -> None:
    """Every `n_` file is refused with one of the reading codes; nothing else is raised."""
    refused = {name: _verdict(data) for name, data in cases.items() if name.startswith("n_")}

    assert len(refused) > 180
    assert {name: code for name, code in refused.items() if code not in VERDICTS} == {}


def test_the_walk_refuses_only_nul_and_lone_surrogates(cases: dict[str, bytes]) -> None:
    """Of what is JSON, intake refuses two files more: those with an escaped NUL, in a text and in a name."""
    refused = set()
    for name, data in cases.items():
        if name.startswith("y_") and name not in REFUSED_ON_PURPOSE:
            try:
                parse(data)
            except ValidationFailed:
                refused.add(name)

    assert refused == {"y_string_null_escape.json", "y_object_escaped_null_in_key.json"}


@pytest.mark.parametrize("name", JCS)
def test_canonical_json_is_the_corpuss(corpora: Path, name: str) -> None:
    """Each input of the JCS corpus has the corpus's output, which is canonical itself."""
    expected = (corpora / f"jcs/output/{name}.json").read_bytes()
    value = json.loads((corpora / f"jcs/input/{name}.json").read_bytes())

    assert canonical.encode(value) == expected
    assert canonical.decode_exact(expected) == json.loads(expected)


def test_ten_thousand_numbers(corpora: Path) -> None:
    """Numbers are written as ECMAScript writes them (RFC 8785 §3.2.2.3)."""
    with gzip.open(corpora / "jcs/es6_numbers_10000.txt.gz", "rt") as lines:
        pairs = [line.strip().split(",") for line in lines]
    wrong = [
        (bits, expected)
        for bits, expected in pairs
        if canonical.encode(struct.unpack(">d", bytes.fromhex(bits.zfill(16)))[0]) != expected.encode()
    ]

    assert (len(pairs), wrong) == (10_000, [])
