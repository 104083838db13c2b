"""Who publishes another issuer's public key harms nobody: not by coming first, not by coming second, not at a start.

NASA and ESA publish at URLs, LOC's keys are a file. Key sets are public, so that anybody can copy a key out of them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flux_client.development import DevelopmentAgency, write_development_registry
from flux_client.keys import SigningKey, generate_key, jwks_path, load_key, private_key_path
from flux_client.tokens import IssuerKey
from flux_common.auth import ConfigurationRefused, RecordContext, Refresh, RegistrySource, TokenRefused, verify
from flux_common.auth.source import url_of
from flux_common.kernel.codes import Code

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
NASA, ESA, LOC = (f"https://issuer.{agency}.example" for agency in ("nasa", "esa", "loc"))
OLD, NEW, OTHER = generate_key(), generate_key(), generate_key()


@dataclass
class World:
    """Registry and keys of a process, and a producer for each issuer."""

    path: Path
    source: RegistrySource

    def restart(self) -> None:
        """Begin anew, with what is in files and nothing else."""
        self.source = RegistrySource(self.path, NOW)

    def publish(self, iss: str, *keys: SigningKey, at: datetime = NOW) -> bool:
        """Bring what an issuer publishes."""
        url = url_of(self.source.trust.registry, iss)
        assert url is not None
        return self.source.publish(iss, url, jwks(*keys), at)

    def code(self, key: SigningKey, agency: str, iss: str | None = None, at: datetime = NOW) -> Code | None:
        """Return how a token for `agency` is refused that `key` signs, in its own issuer's name or in that of `iss`."""
        token, trust = IssuerKey(key, iss).token(agency, at), self.source.trust
        digest = hashlib.sha256(b"{}").digest()
        record = RecordContext(f"flux.{agency}.run.requests.v1", b"r-1", digest, at, agency)
        try:
            verified = verify(b"Bearer " + token.encode(), record, trust.registry, trust.keys, at)
        except TokenRefused as refused:
            return refused.reason
        assert (verified.agency_id, verified.kid) == (agency, key.kid)
        return None

    def shared(self) -> set[frozenset[str]]:
        """Return the pairs of issuers that are told of."""
        return {frozenset({one.issuer, one.other}) for one in self.source.trust.keys.shared}


def jwks(*keys: SigningKey) -> bytes:
    """Return a key set."""
    return json.dumps({"keys": [key.public_jwk() for key in keys]}).encode()


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Before anything was fetched."""
    urls = {"nasa": "https://id.nasa.example/jwks", "esa": "https://id.esa.example/jwks", "loc": None}
    agencies = [DevelopmentAgency(name, name.upper(), jwks_url=url) for name, url in urls.items()]
    path = write_development_registry(tmp_path / "keys", agencies)
    return World(path, RegistrySource(path, NOW))


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("order", [(NASA, ESA), (ESA, NASA)], ids=["the owner first", "the thief first"])
def test_a_copied_key_locks_nobody_out(world: World, order: tuple[str, str], restarted: bool) -> None:
    """NASA announces a key, and ESA copies it: NASA rotates, and its set is confirmed. Both are named."""
    world.publish(NASA, OLD)
    world.publish(ESA, OTHER)
    if restarted:
        world.restart()
    published = {NASA: (OLD, NEW), ESA: (OTHER, NEW)}
    for at in (NOW, LATER):
        for iss in order:
            world.publish(iss, *published[iss], at=at)

    assert [world.code(key, "nasa") for key in (OLD, NEW)] == [None, None]
    assert world.source.trust.keys.of(NASA).confirmed_at == LATER
    assert world.code(OTHER, "esa") is None
    assert world.shared() == {frozenset({NASA, ESA})}

    world.publish(ESA, OTHER, at=LATER)
    assert world.shared() == set()


def test_a_copied_key_gives_nobody_a_name(world: World) -> None:
    """What a set verifies, it verifies in its own issuer's name; and to sign takes the private half, which has one owner."""
    world.publish(ESA, OTHER, NEW)
    world.publish(NASA, OLD, NEW)
    posing = SigningKey(OTHER.algorithm, OTHER.private_key, NEW.kid)

    assert world.code(OTHER, "nasa", NASA) is Code.KEY_UNKNOWN
    assert world.code(posing, "nasa", NASA) is Code.SIGNATURE_INVALID
    assert world.code(OTHER, "nasa", ESA) is Code.AGENCY_MISMATCH
    assert world.code(NEW, "esa", NASA) is Code.AGENCY_MISMATCH


@pytest.mark.parametrize("restarted", [False, True])
def test_a_copied_key_of_a_file_locks_nobody_out_either(world: World, restarted: bool) -> None:
    """Whichever of the two is the copy: the file's, which its agency handed to the operator, or the one at the URL."""
    filed = load_key(private_key_path(world.path.parent, "loc"))
    world.publish(NASA, NEW, filed)
    assert (world.code(NEW, "nasa"), world.code(filed, "loc")) == (None, None)
    assert world.shared() == {frozenset({NASA, LOC})}

    jwks_path(world.path.parent, "loc").write_bytes(jwks(NEW, OTHER))
    if restarted:
        world.restart()
        world.publish(NASA, NEW, filed)
    else:
        assert world.source.refresh(NOW) is Refresh.RELOADED
    assert (world.code(NEW, "nasa"), world.code(OTHER, "loc")) == (None, None)
    assert world.shared() == {frozenset({NASA, LOC})}


def test_what_operators_write_shares_no_key(world: World) -> None:
    """Two files with one key are refused as ever, and nothing of them is taken."""
    agencies = [DevelopmentAgency("nasa", "NASA"), DevelopmentAgency("loc", "LOC")]
    path = write_development_registry(world.path.parent / "files", agencies)
    jwks_path(path.parent, "nasa").write_bytes(jwks(NEW))
    jwks_path(path.parent, "loc").write_bytes(jwks(NEW))

    with pytest.raises(ConfigurationRefused, match="is also a key of the issuer"):
        RegistrySource(path, NOW)
