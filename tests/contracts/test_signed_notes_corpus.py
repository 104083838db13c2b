"""Signed notes, verifier keys and checkpoint bodies of C2SP, Go, transparency-dev and Tessera are judged as published."""

from __future__ import annotations

import base64
import itertools
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from flux_audit.domain.merkle import Frontier, append, consistency_plan, frontier_of, inclusion_plan, leaf_hash
from flux_audit.domain.tree_head import HeadMalformed, TreeHead, read_note, read_text
from flux_client.verifier import (
    Trust,
    VerificationFailed,
    open_head,
    open_note,
    parse_head,
    parse_key,
    verify_consistency,
    verify_inclusion,
)
from flux_devkit import home

CORPORA = home.corpora()
FOLDER = CORPORA / "signed-notes"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="FLUX_CORPORA: no signed-notes (C2SP note vectors)")
TESSERA = "example.com/log/testdata"


def vectors() -> dict[str, Any]:
    return json.loads((FOLDER / "vectors.json").read_bytes())  # type: ignore[no-any-return]


def note_bytes(note: dict[str, Any]) -> bytes:
    return base64.b64decode(note["note_b64"])


def verdict(note: dict[str, Any]) -> tuple[str, list[str]]:
    try:
        return "ok", open_note(note_bytes(note), note["vkeys"])[1]
    except VerificationFailed as failed:
        return str(failed).partition(":")[0], []


def test_every_note_has_its_published_verdict() -> None:
    """All 44 notes: accepted with exactly those signers, or refused for exactly that reason."""
    notes = vectors()["notes"]

    assert {note["id"]: verdict(note) for note in notes} == {
        note["id"]: (note["result"], note["verified"]) for note in notes
    }
    assert len(notes) == 44


def test_every_verifier_key_is_judged_as_published() -> None:
    """All 83 key strings: the eight valid ones are read, whatever was altered in the others is noticed."""
    keys = vectors()["vkeys"]

    assert [is_key(key["vkey"]) for key in keys] == [key["valid"] for key in keys]
    assert len(keys) == 83


def is_key(text: str) -> bool:
    try:
        return parse_key(text)[0] == text.partition("+")[0]
    except VerificationFailed:
        return False


def test_every_checkpoint_body_is_judged_strictly() -> None:
    """All 17 bodies: what is published as invalid is refused, and so is what a reader that wants 32 bytes refuses."""
    bodies = vectors()["checkpoint_bodies"]
    expected = [(one["origin"], one["size"]) if one["valid"] and "strict" not in one else None for one in bodies]

    assert [client_reads(one["body"]) for one in bodies] == expected
    assert len(bodies) == 17


def client_reads(body: str) -> tuple[str, int] | None:
    try:
        head = parse_head(body)
    except VerificationFailed:
        return None
    return head.origin, head.size


def test_the_service_reads_no_body_that_the_verifier_refuses() -> None:
    """The service's reader is stricter than the verifier's, never laxer."""
    for one in vectors()["checkpoint_bodies"]:
        try:
            head = read_text(one["body"])
        except HeadMalformed:
            continue
        assert client_reads(one["body"]) == (head.origin, head.size)


def test_a_note_that_the_log_did_not_sign_is_no_head() -> None:
    """Witnesses alone, or a good signature under a body that is none, verify as notes and are refused as heads."""
    notes = {note["id"]: note for note in vectors()["notes"]}
    for name in ("formats-only-witnesses", "formats-good-signature-bad-body"):
        assert verdict(notes[name])[0] == "ok"
        with pytest.raises(VerificationFailed):
            open_head(note_bytes(notes[name]), Trust(notes[name]["vkeys"], "any", notes[name]["note"].split("\n")[0]))


def tessera_heads() -> dict[int, TreeHead]:
    notes = [note for note in vectors()["notes"] if note["id"].startswith("tessera-checkpoint.")]
    opened = [open_head(note_bytes(note), Trust(note["vkeys"], "testdata", TESSERA)) for note in notes]
    read = [read_note(note_bytes(note).decode())[0] for note in notes]
    assert [(one.origin, one.size, one.root) for one in opened] == [(one.origin, one.size, one.root) for one in read]
    return {head.size: head for head in read}


def tessera_entries() -> Iterator[bytes]:
    with tarfile.open(FOLDER / "tessera_log.tar.gz") as archive:
        tile = archive.extractfile("log/tile/entries/000.p/15")
        assert tile is not None
        while length := tile.read(2):
            yield tile.read(int.from_bytes(length, "big"))


def test_a_log_of_another_implementation_is_the_same_tree() -> None:
    """From Tessera's entries come Tessera's signed roots at every size, and proofs that the verifier accepts."""
    heads, leaves = tessera_heads(), [leaf_hash(entry) for entry in tessera_entries()]
    stored = {node.at: node.hash for node in append(Frontier(), leaves).nodes}

    assert sorted(heads) == list(range(16))
    assert {size: frontier_of(size, stored).root for size in heads} == {size: head.root for size, head in heads.items()}
    for older, newer in itertools.combinations(range(1, 16), 2):
        proof = consistency_plan(older, newer).fold(stored)
        verify_consistency(older, newer, heads[older].root, heads[newer].root, proof)
        verify_inclusion(
            leaves[older - 1], older - 1, newer, inclusion_plan(older - 1, newer).fold(stored), heads[newer].root
        )
