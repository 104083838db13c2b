"""Tree heads are written and read in exactly one form, and the signer's memory decides what may be signed."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_audit.domain.tree_head import (
    Algorithm,
    HeadMalformed,
    NoteSignature,
    TreeHead,
    judge_memory,
    key_id,
    log_origin,
    read_note,
    read_text,
    signed_note,
    verifier_key,
)
from flux_common.kernel.codes import Code

ROOT = bytes(range(32))
HEAD = TreeHead("flux.example/audit/nasa", 7, ROOT)
SIGNATURE = NoteSignature(HEAD.origin, b"\x01\x02\x03\x04", b"signature")
NOTE = signed_note(HEAD.text, [SIGNATURE])


def test_the_text_of_a_head() -> None:
    """Origin, size and root in base64 stand on a line each, as tlog-checkpoint says."""
    assert HEAD.text == "flux.example/audit/nasa\n7\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"


def test_each_agency_has_an_origin_of_its_own() -> None:
    """The origin is the installation's prefix and the agency."""
    assert log_origin("flux.example/audit/", "nasa") == log_origin("flux.example/audit", "nasa") == HEAD.origin


def test_a_published_verifier_key_comes_out() -> None:
    """Name and public key of the example in C2SP signed-note make the published key string."""
    published = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
    public = base64.b64decode(published.rpartition("+")[2])[1:]

    assert verifier_key("example.com/foo", Algorithm.ED25519, public) == published
    assert key_id("example.com/foo", Algorithm.ED25519, public).hex() == "530d903a"


def test_an_ecdsa_key_id_is_that_of_the_public_key_alone() -> None:
    """For ECDSA the id does not depend on the name, as signed-note says of type 0x02."""
    assert key_id("one", Algorithm.ECDSA, b"spki") == key_id("two", Algorithm.ECDSA, b"spki")
    assert key_id("one", Algorithm.ED25519, b"spki") != key_id("two", Algorithm.ED25519, b"spki")


@given(size=st.integers(0, 2**63 - 1), root=st.binary(min_size=32, max_size=32), count=st.integers(1, 4))
def test_what_is_written_is_read(size: int, root: bytes, count: int) -> None:
    """A signed head reads back as the head and the signatures it was made of."""
    head = TreeHead("flux.example/nasa", size, root)

    assert read_note(signed_note(head.text, [SIGNATURE] * count)) == (head, (SIGNATURE,) * count)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "origin\n7\n",
        "\n7\n" + HEAD.text.split("\n")[2] + "\n",
        HEAD.text + "extension\n",
        HEAD.text + "\n",
        HEAD.text[:-1],
        HEAD.text.replace("\n7\n", "\n07\n"),
        HEAD.text.replace("\n7\n", "\n+7\n"),
        HEAD.text.replace("\n7\n", "\n٧\n"),
        HEAD.text.replace("\n7\n", f"\n{2**63}\n"),
        HEAD.text.replace("Hh8=", "Hh9="),
        HEAD.text.replace("Hh8=", "Hg=="),
        HEAD.text.replace("AAEC", "AA C"),
        HEAD.text.replace("nasa", "na sa"),
        HEAD.text.replace("nasa", "na+sa"),
        HEAD.text.replace("nasa", "na\x85sa"),
    ],
    ids=repr,
)
def test_text_of_another_form_is_no_head(text: str) -> None:
    """Sizes, roots and origins have one way to be written; extension lines are none of Flux's."""
    with pytest.raises(HeadMalformed):
        read_text(text)


@pytest.mark.parametrize(
    "note",
    [
        HEAD.text,
        HEAD.text + "\n",
        NOTE[:-1],
        NOTE + "more\n",
        NOTE.replace("— ", "- "),
        NOTE.replace("— flux", "—  flux"),
        HEAD.text + "\n— name \n",
        HEAD.text + "\n— name AQIDBA==\n",
        HEAD.text + "\n— name AQIDBAU=\n\n",
    ],
    ids=repr,
)
def test_a_note_of_another_form_is_no_signed_head(note: str) -> None:
    """Signature lines are complete and nothing follows them."""
    with pytest.raises(HeadMalformed):
        read_note(note)


@pytest.mark.parametrize(("size", "root"), [(-1, ROOT), (2**63, ROOT), (1, ROOT[:31])])
def test_a_head_out_of_range_cannot_be_made(size: int, root: bytes) -> None:
    """A head is only made of a size that PostgreSQL can hold and a root of 32 bytes."""
    with pytest.raises(HeadMalformed):
        TreeHead("origin", size, root)


@pytest.mark.parametrize(
    ("remembered", "signed_size", "own_root", "verdict"),
    [
        (None, 0, None, None),
        (HEAD, 7, ROOT, None),
        (HEAD, 9, ROOT, None),
        (HEAD, 6, ROOT, Code.DATABASE_BEHIND_KAFKA),
        (HEAD, 7, None, Code.DATABASE_BEHIND_KAFKA),
        (HEAD, 7, bytes(32), Code.FORK),
    ],
)
def test_memory_decides_what_may_be_signed(
    remembered: TreeHead | None, signed_size: int, own_root: bytes | None, verdict: Code | None
) -> None:
    """A restored database knows less than was published, a rewritten one has another root: neither is signed."""
    assert judge_memory(remembered, signed_size, own_root) == verdict
