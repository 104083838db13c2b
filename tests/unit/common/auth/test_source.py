"""Reloading: changes are taken whole, faults change nothing, and nobody is ever removed."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flux_client.development import EXAMPLE_AGENCIES, DevelopmentAgency, write_development_registry
from flux_client.keys import generate_key, jwks_path
from flux_common.auth import ConfigurationRefused, Refresh, RegistrySource
from flux_common.auth.source import url_of

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
NASA = "https://issuer.nasa.example"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The development registry, freshly made."""
    return write_development_registry(tmp_path / "keys")


def rewrite(path: Path, text: str) -> None:
    """Replace a file, as an editor or a mounted volume does: a new file under the old name."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def test_without_a_good_registry_nothing_starts(path: Path) -> None:
    """The first load raises."""
    path.write_text("version: 2")

    with pytest.raises(ConfigurationRefused):
        RegistrySource(path, NOW)


def test_unchanged_files_are_not_read_again_and_their_keys_stay_fresh(path: Path) -> None:
    """The registry is the same value; the keys are confirmed as of the refresh."""
    source = RegistrySource(path, NOW)
    registry, generation = source.trust.registry, source.trust.keys.generation

    assert Refresh.UNCHANGED is source.refresh(LATER)
    assert registry is source.trust.registry
    assert (generation, LATER) == (source.trust.keys.generation, source.trust.keys.of(NASA).confirmed_at)


def test_a_changed_registry_is_taken(path: Path) -> None:
    """Suspending an agency takes effect without a restart."""
    source = RegistrySource(path, NOW)
    rewrite(path, path.read_text().replace("suspended: false", "suspended: true"))

    assert Refresh.RELOADED is source.refresh(LATER)
    assert all(agency.suspended for agency in source.trust.registry.agencies.values())
    assert Refresh.UNCHANGED is source.refresh(LATER)


def test_a_change_in_place_is_seen(path: Path) -> None:
    """The same inode with another time is another file."""
    source = RegistrySource(path, NOW)
    path.write_text(path.read_text() + "# changed\n")

    assert Refresh.RELOADED is source.refresh(LATER)


def test_a_changed_key_set_is_taken(path: Path) -> None:
    """A rotated key is known at once, the revoked one is gone, and the generation is another."""
    source = RegistrySource(path, NOW)
    before, fresh = source.trust.keys, generate_key("EdDSA")
    rewrite(jwks_path(path.parent, "nasa"), json.dumps({"keys": [fresh.public_jwk()]}))

    assert Refresh.RELOADED is source.refresh(LATER)
    assert [fresh.kid] == list(source.trust.keys.of(NASA).keys)
    assert before.generation != source.trust.keys.generation


@pytest.mark.parametrize("broken", ["agencies.yaml", "nasa.jwks.json"])
def test_a_fault_changes_nothing_and_confirms_nothing(path: Path, broken: str) -> None:
    """The old registry and keys stay; since nothing confirms the keys, they go stale in the end."""
    source = RegistrySource(path, NOW)
    before, good = source.trust, (path.parent / broken).read_text()
    rewrite(path.parent / broken, "{")

    assert Refresh.REFUSED is source.refresh(LATER)
    assert Refresh.REFUSED is source.refresh(LATER)
    assert before is source.trust
    assert source.faults
    assert source.trust.keys.of(NASA).is_stale(NOW + timedelta(hours=25))

    rewrite(path.parent / broken, good)
    assert Refresh.RELOADED is source.refresh(LATER)
    assert source.faults == ()


def test_under_a_registry_with_a_fault_fetched_keys_go_stale_too(tmp_path: Path) -> None:
    """What its operator wrote, an end of a key perhaps, is not known: no issuer can keep the old registry alive for ever."""
    agency = DevelopmentAgency("nasa", "NASA", jwks_url="https://id.nasa.example/jwks")
    path = write_development_registry(tmp_path / "keys", [agency])
    source, data = RegistrySource(path, NOW), json.dumps({"keys": [generate_key("ES256").public_jwk()]}).encode()
    url = url_of(source.trust.registry, NASA)
    assert url is not None
    source.publish(NASA, url, data, NOW)
    good = path.read_text()
    rewrite(path, "{")
    source.refresh(LATER)
    source.publish(NASA, url, data, LATER)
    other = json.dumps({"keys": [generate_key("ES256").public_jwk()]}).encode()

    assert source.trust.keys.of(NASA).confirmed_at == NOW
    assert source.publish(NASA, url, other, LATER)  # a key that is taken out is revoked at once all the same
    assert source.trust.keys.of(NASA).confirmed_at == NOW

    rewrite(path, good)
    source.refresh(LATER)
    source.publish(NASA, url, other, LATER)
    assert source.trust.keys.of(NASA).confirmed_at == LATER


def test_a_vanished_file_changes_nothing(path: Path) -> None:
    """A volume that is gone for a while stops nobody; its return is taken."""
    source = RegistrySource(path, NOW)
    aside = path.with_suffix(".aside")
    path.rename(aside)

    assert Refresh.REFUSED is source.refresh(LATER)
    assert "nasa" in source.trust.registry.agencies
    aside.rename(path)
    assert source.refresh(LATER) is not Refresh.REFUSED
    assert source.faults == ()


def test_a_restored_file_is_as_good_as_before(path: Path) -> None:
    """The very file that was read, back in its place with its times, ends the faults."""
    source = RegistrySource(path, NOW)
    aside = path.with_suffix(".aside")
    os.link(path, aside)
    path.unlink()
    source.refresh(LATER)
    os.link(aside, path)
    aside.unlink()

    assert source.refresh(LATER) is not Refresh.REFUSED
    assert (source.trust.keys.of(NASA).confirmed_at, source.faults) == (LATER, ())


def test_an_agency_is_never_removed(path: Path) -> None:
    """A file without an agency that was there is a fault with the remedy; suspending it is not."""
    source = RegistrySource(path, NOW)
    write_development_registry(path.parent, EXAMPLE_AGENCIES[:2])

    assert Refresh.REFUSED is source.refresh(LATER)
    assert [str(fault) for fault in source.faults] == [
        'agencies: "library-of-congress" is gone; an agency is never removed, set suspended: true'
    ]
    assert "library-of-congress" in source.trust.registry.agencies


def test_a_new_agency_is_taken(path: Path) -> None:
    """With its issuer and its keys, in one step."""
    source = RegistrySource(path, NOW)
    write_development_registry(path.parent, [*EXAMPLE_AGENCIES, DevelopmentAgency("esa", "ESA")])

    assert Refresh.RELOADED is source.refresh(LATER)
    assert source.trust.keys.of("https://issuer.esa.example").keys
