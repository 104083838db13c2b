"""An agency more: what deploy/k8s/README.md says is enough, and the manifests agree with the code again."""

from __future__ import annotations

import shutil
from pathlib import Path

from typer.testing import CliRunner

from flux_client.cli.app import app
from flux_client.keys import ensure_key, jwks_path
from flux_common.contracts.catalogue import TOPICS
from flux_devkit.manifests import generated, rendering
from flux_devkit.manifests.checks import checks_for
from flux_devkit.manifests.documents import named, of_kind

REPOSITORY = Path(__file__).resolve().parents[2]


def test_an_agency_is_added_by_its_entry_and_what_follows_from_it(tmp_path: Path) -> None:
    """Registry, key file, topics, login, quota and the services' grants; nothing else changes, and no check complains."""
    shutil.copytree(REPOSITORY / "deploy", tmp_path / "deploy")
    registry = tmp_path / "deploy/k8s/registry"
    ensure_key(tmp_path / "keys", "esa", "ES256")
    shutil.copy(jwks_path(tmp_path / "keys", "esa"), registry / "esa.jwks.json")
    arguments = ["--name", "ESA", "--issuer", "https://id.esa.example", "--jwks", str(registry / "esa.jwks.json")]
    places = ["--source", "s3://esa-scans/", "--destination", "s3://esa-datasets/"]
    command = ["agencies", "add", "esa", *arguments, *places, "--agencies", str(registry / "agencies.yaml")]
    added = CliRunner().invoke(app, command)
    assert added.exit_code == 0, added.output

    changed = generated.generate(tmp_path)
    documents = rendering.documents(tmp_path / "deploy/k8s", "production")
    topics = {each["metadata"]["name"] for each in of_kind(documents, "KafkaTopic")}
    reads = {
        acl["resource"]["name"] for acl in named(documents, "KafkaUser", "flux-ingest")["spec"]["authorization"]["acls"]
    }
    checks = checks_for("production", REPOSITORY, None)

    assert {path.name for path in changed} == {"topics.yaml", "users.yaml", "kustomization.yaml"}
    assert topics >= {spec.of("esa") for spec in TOPICS if spec.per_agency}
    assert named(documents, "KafkaUser", "flux.esa")["spec"]["quotas"]["producerByteRate"] > 0
    assert "flux.esa.run.requests.v1" in reads
    assert "esa.jwks.json" in named(documents, "ConfigMap", "flux-agencies")["data"]
    assert [str(finding) for judge in checks.values() for finding in judge(documents)] == []
