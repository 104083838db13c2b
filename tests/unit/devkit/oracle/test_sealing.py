"""The oracle's own trees, by the vectors of RFC 6962's test logs (certificate-transparency), and its verifier keys."""

from __future__ import annotations

from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flux_client.verifier import parse_key
from flux_devkit.oracle.heads import read_head, signature_fault, verifier_keys
from flux_devkit.oracle.sealing import full_subtrees, root_at, tree_root

LEAVES = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
HASHES = [sha256(b"\x00" + bytes.fromhex(leaf)).digest() for leaf in LEAVES]


@pytest.mark.parametrize(
    ("size", "root"),
    [
        (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
        (3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
        (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
    ],
)
def test_roots_are_those_of_the_standard(size: int, root: str) -> None:
    """MTH of RFC 6962 §2.1."""
    assert tree_root(HASHES[:size]).hex() == root


def test_every_earlier_root_folds_out_of_the_full_subtrees() -> None:
    """Stored nodes are compared with these levels, signed heads with these roots."""
    levels = full_subtrees(HASHES)

    assert [len(level) for level in levels] == [8, 4, 2, 1]
    assert [root_at(levels, size) for size in range(9)] == [tree_root(HASHES[:size]) for size in range(9)]


def test_keys_are_named_after_the_log_as_the_verifier_reads_them() -> None:
    """Ed25519 and P-256, each under the origin's name and the id that the standard derives."""
    public = [Ed25519PrivateKey.generate().public_key(), ec.generate_private_key(ec.SECP256R1()).public_key()]

    assert [parse_key(key)[0] for key in verifier_keys("flux.example/nasa", public)] == ["flux.example/nasa"] * 2


def test_a_head_that_nobody_signed_is_refused() -> None:
    """Only where a key is known: without one nothing can be said."""
    head = read_head("flux.example/nasa\n1\n" + "A" * 43 + "=\n\n— flux.example/nasa AAAAAAA=\n")
    assert head is not None

    assert signature_fault(head, ()) is None
    assert signature_fault(head, (Ed25519PrivateKey.generate().public_key(),)) is not None
    assert read_head("no head") is None
