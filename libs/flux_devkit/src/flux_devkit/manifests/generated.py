"""What is written from the code: Strimzi's topics and logins, the registry's ConfigMap, and the alerts as a PrometheusRule.

The catalogue and the registry in deploy/k8s/registry say which topics, logins and quotas there are; deploy/observability says
which alerts. `generate` writes all of it, and a test says that what is committed is what would be written now.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import yaml

from flux_client.strimzi import Cluster, agency_manifests, internal_topics, service_users
from flux_common.auth.registry_file import load_registry
from flux_devkit.manifests.documents import NAMESPACE, Document

KAFKA: Final = Cluster("flux", NAMESPACE)
REGISTRY: Final = "deploy/k8s/registry/agencies.yaml"
RULES: Final = "deploy/observability/rules/flux.yaml"
CONFIG_MAP: Final = """# agencies.yaml with the public keys of its issuers: examples, until an installation puts its own there.
# No suffix in the name: services see a changed registry within seconds, and need no restart for it.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
configMapGenerator:
  - name: flux-agencies
    options: {{disableNameSuffixHash: true}}
    files: [{files}]
"""
HEAD: Final = "# Written by `python -m flux_devkit.manifests generate` from {source}. Do not edit.\n"


def files(repository: Path) -> dict[Path, str]:
    """Return every generated file with its text."""
    registered = load_registry(repository / REGISTRY).agencies
    listed = sorted(registered)
    own = [each for agency in listed for each in agency_manifests(agency, KAFKA, registered[agency].quota)]
    brokers = [*internal_topics(KAFKA), *service_users(listed, KAFKA), *own]
    strimzi = repository / "deploy/k8s/components/strimzi/generated"
    alerts = repository / "deploy/k8s/components/prometheus-operator/generated"
    source = f"the catalogue and {REGISTRY}"
    return {
        strimzi / "topics.yaml": _text(source, (each for each in brokers if each["kind"] == "KafkaTopic")),
        strimzi / "users.yaml": _text(source, (each for each in brokers if each["kind"] == "KafkaUser")),
        repository / Path(REGISTRY).with_name("kustomization.yaml"): _config_map(repository),
        alerts / "rules.yaml": _text(RULES, [prometheus_rule(yaml.safe_load((repository / RULES).read_text()))]),
    }


def _config_map(repository: Path) -> str:
    """Return the kustomization that makes a ConfigMap of the registry and of every key file that it names."""
    registry = repository / REGISTRY
    keys = sorted(
        issuer.jwks.name for issuer in load_registry(registry).issuers.values() if isinstance(issuer.jwks, Path)
    )
    return HEAD.format(source=REGISTRY) + CONFIG_MAP.format(files=", ".join([registry.name, *keys]))


def prometheus_rule(rules: dict[str, Any]) -> Document:
    """Return a file of Prometheus' rules as the operator's resource."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "flux", "namespace": NAMESPACE, "labels": {"app.kubernetes.io/part-of": "flux"}},
        "spec": rules,
    }


def generate(repository: Path) -> list[Path]:
    """Write what has changed, and return it."""
    changed = []
    for path, text in files(repository).items():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            changed.append(path)
    return changed


def _text(source: str, documents: Iterable[Document]) -> str:
    return HEAD.format(source=source) + yaml.safe_dump_all(documents, sort_keys=False, width=1000)
