"""`flux-etl agencies add`: an entry that a service takes, the rest of the file as it was, and manifests beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flux_client.cli.app import run
from flux_client.cli.exits import Exit
from flux_client.keys import ensure_key
from flux_common.auth import load_registry
from flux_common.contracts.access import AGENCY_QUOTA

Captured = pytest.CaptureFixture[str]
REGISTRY = """\
# Who may ask for what.
version: 1
agencies:
  # The first one.
  - id: nasa
    name: NASA  # since 1958
    issuers:
      https://issuer.nasa.example: {jwks: keys/nasa.jwks.json, algorithms: [EdDSA], audience: flux}
    source_prefixes: ["s3://nasa/"]
    destination_prefixes: ["s3://nasa-out/"]
    quota: {request_percentage: 20}
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a registry of one agency, with the key sets of two beside it."""
    monkeypatch.setenv("FLUX_DEV_ENV", "")
    monkeypatch.chdir(tmp_path)
    ensure_key(tmp_path / "keys", "nasa", "EdDSA")
    ensure_key(tmp_path / "keys", "esa", "ES256")
    path = tmp_path / "agencies.yaml"
    path.write_text(REGISTRY)
    return path


def add(agency: str = "esa", *more: str, issuer: str = "https://issuer.esa.example", jwks: str = "esa") -> int:
    """Add an agency; its key set is `keys/<jwks>.jwks.json`."""
    said = ["--name", "ESA: Európska", "--issuer", issuer, "--jwks", f"keys/{jwks}.jwks.json"]
    places = ["--source", "s3://esa/", "--destination", "s3://esa-out/"]
    return run(["agencies", "add", agency, *said, *places, "--agencies", "agencies.yaml", *more])


def test_an_agency_is_added_behind_the_last_and_comments_stay(registry: Path) -> None:
    """The entry is one that is loaded; algorithms are the key set's; what stood there stands there still."""
    assert add() == Exit.OK

    found = load_registry(registry)
    assert registry.read_text().startswith(REGISTRY)
    assert (found.agencies["esa"].name, found.agencies["esa"].quota) == ("ESA: Európska", AGENCY_QUOTA)
    assert found.issuers["https://issuer.esa.example"].algorithms == {"ES256"}
    assert found.agencies["nasa"].quota.request_percentage == 20


def test_a_registry_that_is_not_there_is_made(registry: Path) -> None:
    """The first agency of an installation is added like any other."""
    registry.unlink()

    assert add() == Exit.OK
    assert list(load_registry(registry).agencies) == ["esa"]


def test_a_file_that_text_cannot_be_added_to_is_written_anew_and_that_is_said(registry: Path, capsys: Captured) -> None:
    """A list in flow style; the agencies are what counts."""
    registry.write_text(f"# gone\n{yaml.safe_dump(yaml.safe_load(REGISTRY), default_flow_style=True)}")

    assert add() == Exit.OK
    assert "its comments are gone" in capsys.readouterr().err
    assert sorted(load_registry(registry).agencies) == ["esa", "nasa"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"agency": "nasa"}, "already agencies[0]"),
        ({"issuer": "https://issuer.nasa.example"}, "differs from the one in agencies[0]"),
        ({"jwks": "nasa"}, "is also a key of the issuer"),
    ],
)
def test_what_the_loader_refuses_is_not_written(
    registry: Path, capsys: Captured, arguments: dict[str, str], said: str
) -> None:
    """An id or an issuer that is taken, a key that another issuer has."""
    assert add(**arguments) == Exit.FAULTS
    assert said in capsys.readouterr().err
    assert registry.read_text() == REGISTRY
    assert sorted(path.name for path in registry.parent.iterdir()) == ["agencies.yaml", "keys"]


def test_manifests_are_the_agencys_own_and_the_services_logins_that_name_it(registry: Path) -> None:
    """Its topics and login in one file; in the other every service's login, for they may use its topics now."""
    assert add("esa", "--manifests", "out", "--cluster", "flux-kafka") == Exit.OK
    own, services = (
        list(yaml.safe_load_all((registry.parent / "out" / name).read_text()))
        for name in ("agency-esa.yaml", "services.yaml")
    )

    assert [one["metadata"]["name"] for one in own if one["kind"] == "KafkaUser"] == ["flux.esa"]
    assert len([one for one in own if one["kind"] == "KafkaTopic"]) == 5
    assert {one["metadata"]["labels"]["strimzi.io/cluster"] for one in [*own, *services]} == {"flux-kafka"}
    ingest = next(one for one in services if one["metadata"]["name"] == "flux-ingest")
    named = {acl["resource"]["name"] for acl in ingest["spec"]["authorization"]["acls"]}
    assert {"flux.esa.run.requests.v1", "flux.nasa.run.requests.v1"} <= named


def test_an_id_that_kubernetes_has_no_name_for_is_refused_with_its_manifests(registry: Path) -> None:
    """Nothing is written, neither the entry nor a manifest."""
    assert add("esa-", "--manifests", "out") == Exit.USAGE
    assert registry.read_text() == REGISTRY
