"""The signer reads one private key from a file, signs heads with it, and refuses every other kind of key."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from flux_audit.adapters.signer import TreeHeadSigner
from flux_audit.domain.tree_head import TreeHead, read_note
from flux_client.verifier import open_note
from flux_common.kernel.errors import FluxError

HEAD = TreeHead("flux.example/audit/nasa", 7, bytes(range(32)))
PLAIN = NoEncryption()


def pem(folder: Path, key: PrivateKeyTypes, encryption: KeySerializationEncryption = PLAIN) -> Path:
    path = folder / "signing-key.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return path


@pytest.mark.parametrize("key", [Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())], ids=repr)
def test_a_signed_head_verifies_with_the_published_key(tmp_path: Path, key: PrivateKeyTypes) -> None:
    """Both kinds of key sign notes that the stand-alone verifier opens with the verifier key string alone."""
    signer = TreeHeadSigner.from_file(pem(tmp_path, key))
    note = signer.sign(HEAD)

    assert open_note(note.encode(), [signer.verifier_key(HEAD.origin)]) == (HEAD.text, [HEAD.origin])
    assert read_note(note)[0] == HEAD


def test_one_key_signs_each_log_under_its_own_name(tmp_path: Path) -> None:
    """A head of one agency does not verify with the key string of another, though the private key is the same."""
    signer = TreeHeadSigner.from_file(pem(tmp_path, Ed25519PrivateKey.generate()))

    with pytest.raises(Exception, match="no-verified-signature"):
        open_note(signer.sign(HEAD).encode(), [signer.verifier_key("flux.example/audit/other")])


def test_ed25519_signs_the_same_head_the_same_way(tmp_path: Path) -> None:
    """Signing a head again yields the same note, so a repeated publication is no second story."""
    signer = TreeHeadSigner.from_file(pem(tmp_path, Ed25519PrivateKey.generate()))

    assert signer.sign(HEAD) == signer.sign(HEAD)


@pytest.mark.parametrize(
    "key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())], ids=repr
)
def test_keys_of_another_kind_are_refused(tmp_path: Path, key: PrivateKeyTypes) -> None:
    """RSA and other curves stop the service at start."""
    with pytest.raises(FluxError, match="SETTINGS_INVALID"):
        TreeHeadSigner.from_file(pem(tmp_path, key))


def test_files_without_a_readable_key_are_refused(tmp_path: Path) -> None:
    """A missing file, junk and a key under a passphrase are told by name, without a byte of content."""
    (tmp_path / "junk.pem").write_text("secret junk")
    locked = pem(tmp_path, Ed25519PrivateKey.generate(), BestAvailableEncryption(b"pass"))
    for path in (tmp_path / "missing.pem", tmp_path / "junk.pem", locked):
        with pytest.raises(FluxError, match="cannot be read") as refused:
            TreeHeadSigner.from_file(path)
        assert "secret" not in str(refused.value)
