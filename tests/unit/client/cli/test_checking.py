"""`flux-etl agencies check`: each fault has its place and a next step, also where the key set is at a URL."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from flux_client.cli.app import run
from flux_client.cli.exits import Exit
from flux_client.development import DevelopmentAgency, write_development_registry
from flux_client.keys import generate_key
from flux_devkit.certificates import Authority
from flux_devkit.identity import Answer, IdentityProvider

Captured = pytest.CaptureFixture[str]


def registry(folder: Path, *urls: str) -> Path:
    """Write a registry whose issuers publish at these URLs."""
    return write_development_registry(
        folder, [DevelopmentAgency(f"a{n}", f"Agency {n}", jwks_url=url) for n, url in enumerate(urls)]
    )


def said(capsys: Captured, path: Path, *options: str) -> str:
    """Return what is said of a registry with faults: as many next steps as faults, and one for the whole."""
    assert run(["agencies", "check", str(path), *options]) == Exit.FAULTS
    text = capsys.readouterr().err
    assert text.count("\n  issuers") + text.count("\n  agencies") == text.count("\n    next: ")
    return text


def test_urls_are_tried_only_if_asked(tmp_path: Path, capsys: Captured) -> None:
    """Without --fetch nothing is asked of anybody, and it is told that the keys are not known."""
    with IdentityProvider() as provider:
        path = registry(tmp_path, provider.url)
        status = run(["agencies", "check", str(path), "-o", "json"])

    (row,) = json.loads(capsys.readouterr().out)
    assert (status, row["keys"], provider.asked) == (Exit.OK, "not fetched", [])


def test_what_is_fetched_is_read_as_ingest_reads_it(tmp_path: Path, capsys: Captured) -> None:
    """Over TLS, by the authority that is named."""
    authority = Authority.create(tmp_path / "ca")
    with IdentityProvider(authority.server("127.0.0.1")) as provider:
        provider.publish(generate_key(), generate_key("EdDSA"))
        path = registry(tmp_path / "keys", provider.url)
        trusting = ["agencies", "check", str(path), "--fetch", "-o", "json", "--ca-file", str(authority.file)]
        status = run(trusting)
        rows = json.loads(capsys.readouterr().out)
        distrust = said(capsys, path, "--fetch")

    assert (status, rows[0]["keys"]) == (Exit.OK, 2)
    assert "the certificate is refused (" in distrust
    assert "FLUX_JWKS_CA_FILE" in distrust


def test_every_url_that_fails_is_explained(tmp_path: Path, capsys: Captured) -> None:
    """A redirect, a bad set and a dead server, in one go."""
    with IdentityProvider() as moved, IdentityProvider() as bad, IdentityProvider() as dead:
        moved.answer = Answer(status=302, headers={"Location": bad.url})
        bad.answer = Answer(json.dumps({"keys": [{"kty": "oct", "kid": "k", "k": "AAAA"}]}).encode())
        dead.close()
        text = said(capsys, registry(tmp_path, moved.url, bad.url, dead.url), "--fetch")

    assert "redirect is not followed" in text
    assert "a symmetric or private key has no place here" in text
    assert "no connection" in text


def test_a_key_at_two_urls_is_a_fault(tmp_path: Path, capsys: Captured) -> None:
    """Both issuers are named, whoever copied it."""
    key = generate_key()
    with IdentityProvider() as one, IdentityProvider() as two:
        one.publish(key)
        two.publish(generate_key(), key)
        text = said(capsys, registry(tmp_path, one.url, two.url), "--fetch")

    assert 'issuers["https://issuer.a1.example"].keys' in text
    assert 'is also a key of the issuer "https://issuer.a0.example"' in text


@pytest.mark.parametrize(
    ("change", "next_step"),
    [
        (lambda issuer: issuer.update(jwks="http://id.nasa.example/jwks"), "https://host/path"),
        (lambda issuer: issuer.update(jwks="none.json"), "correct the name, or put it there"),
        (lambda issuer: issuer.update(algorithm="ES256"), "correct the name, or remove it"),
        (lambda issuer: issuer.pop("audience"), "add it"),
        (lambda issuer: issuer.update(retired_at={"k": "2026-01-01"}), "docs/trust.md"),
    ],
)
def test_each_fault_of_the_file_has_a_next_step(
    tmp_path: Path, capsys: Captured, change: Callable[[dict[str, object]], object], next_step: str
) -> None:
    """Whatever is wrong with an issuer."""
    path = registry(tmp_path, "https://id.nasa.example/jwks")
    document = yaml.safe_load(path.read_text())
    (issuer,) = document["agencies"][0]["issuers"].values()
    change(issuer)
    path.write_text(yaml.safe_dump(document))

    assert next_step in said(capsys, path)


def test_a_retirement_of_a_key_that_is_not_there_is_noted(tmp_path: Path, capsys: Captured) -> None:
    """It may be gone for good; it may also be spelt wrong, and the key go on."""
    path = write_development_registry(tmp_path, [DevelopmentAgency("nasa", "NASA")])
    document = yaml.safe_load(path.read_text())
    (issuer,) = document["agencies"][0]["issuers"].values()
    issuer["retired_at"] = {"k-2025": "2026-01-01T00:00:00Z"}
    path.write_text(yaml.safe_dump(document))

    assert run(["agencies", "check", str(path)]) == Exit.OK
    assert 'no key "k-2025"' in capsys.readouterr().err
