"""`flux-etl token mint --bind`, `token proof-key` and `--proof-key`: what binds a token to its request."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import jwt
import pytest

from flux_client.cli.app import run
from flux_client.cli.exits import Exit
from flux_client.development import write_development_registry
from flux_client.keys import load_key
from flux_common.auth.compact import encode_base64url

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def development_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of the example agencies."""
    write_development_registry(tmp_path / "keys")
    monkeypatch.setenv("FLUX_KEYS_DIR", str(tmp_path / "keys"))


def minted(capsys: Captured, *options: str) -> dict[str, object]:
    """Mint a token and return its claims."""
    assert run(["token", "mint", "-a", "nasa", *options]) == Exit.OK
    claims: dict[str, object] = jwt.decode(capsys.readouterr().out.strip(), options={"verify_signature": False})
    return claims


def test_a_proof_key_is_made_once_and_for_its_owner(capsys: Captured) -> None:
    """Its thumbprint is printed, nobody else may read it, and a second call overwrites nothing."""
    assert run(["token", "proof-key", "proof.pem"]) == Exit.OK
    thumbprint = capsys.readouterr().out.strip()

    assert load_key(Path("proof.pem")).kid == thumbprint
    assert stat.S_IMODE(Path("proof.pem").stat().st_mode) == 0o600
    assert run(["token", "proof-key", "proof.pem"]) == Exit.USAGE
    assert load_key(Path("proof.pem")).kid == thumbprint


def test_a_token_is_bound_to_a_file_or_to_a_key(capsys: Captured) -> None:
    """The one by its digest, the other by its thumbprint; unbound without either."""
    run(["token", "proof-key", "proof.pem"])
    thumbprint = capsys.readouterr().out.strip()
    Path("run.json").write_bytes(b"{}")

    by_claim, by_proof = (
        minted(capsys, "--bind", "run.json"),
        minted(capsys, "--bind", "proof", "--proof-key", "proof.pem"),
    )
    assert by_claim["request_hash"] == encode_base64url(hashlib.sha256(b"{}").digest())
    assert by_proof["cnf"] == {"jkt": thumbprint}
    assert "request_hash" not in by_proof
    assert not {"cnf", "request_hash"} & minted(capsys).keys()


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (["--bind", "proof"], Exit.USAGE),
        (["--bind", "none.json"], Exit.NOT_FOUND),
        (["--bind", "proof", "--proof-key", "none.pem"], Exit.NOT_FOUND),
        (["--bind", "proof", "--proof-key", "run.json"], Exit.USAGE),
    ],
)
def test_what_is_missing_is_told(capsys: Captured, options: list[str], status: Exit) -> None:
    """With the next step."""
    Path("run.json").write_bytes(b"{}")

    assert run(["token", "mint", "-a", "nasa", *options]) == status
    assert "next:" in capsys.readouterr().err


def test_a_token_without_its_key_is_not_sent(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """`submit` says so before it looks for Kafka."""
    monkeypatch.setenv("FLUX_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    run(["token", "proof-key", "proof.pem"])
    run(["token", "proof-key", "other.pem"])
    capsys.readouterr()
    run(["token", "mint", "-a", "nasa", "--bind", "proof", "--proof-key", "proof.pem"])
    Path("token").write_text(capsys.readouterr().out)
    Path("run.json").write_bytes(b'{"request_id":"r-1"}')
    submit = ["submit", "-a", "nasa", "-f", "run.json", "--token-file", "token"]

    for options in ([], ["--proof-key", "other.pem"]):
        assert run([*submit, *options]) == Exit.USAGE
        assert "cnf.jkt" in capsys.readouterr().err
