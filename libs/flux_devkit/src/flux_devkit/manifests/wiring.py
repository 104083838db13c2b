"""What refers to what: selectors that select, and names that something bears.

A reference to a Secret is satisfied by an ExternalSecret, by what an operator is known to make, or by the list of secrets that
a person makes by hand where the operator that would make them is not there; `secrets_by_hand` is what is left for a person.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from flux_common.contracts.access import service_principals
from flux_devkit.manifests.documents import Document, Finding, Pod, name_of, of_kind, pods, selects

SPEAKS_OF_US: Final = "app.kubernetes.io/"
BY_HAND: Final = {
    "ExternalSecret": {
        *(f"flux-postgres-{role}" for role in ("migrate", "ingest", "checkpoint", "audit", "reader")),
        "flux-audit-tree-heads",
    },
    "Kafka": {"flux-cluster-ca-cert", *(principal.name for principal in service_principals([]))},
    "Cluster": {"flux-postgres-ca"},
}


def findings(documents: Iterable[Document]) -> Iterator[Finding]:
    """Yield every selector that selects nothing, and every name that nothing bears."""
    listed = list(documents)
    yield from _selectors(listed)
    for pod in pods(listed):
        yield from _references(listed, pod)
    yield from _scale_targets(listed)


def _selectors(documents: list[Document]) -> Iterator[Finding]:
    labels = [pod.labels for pod in pods(documents)]
    for document in documents:
        for place, selector in _label_selectors(document):
            if not any(selects(selector, each) for each in labels):
                yield Finding(name_of(document), f"{place} selects no pod: {selector}")


def _label_selectors(document: Document) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the selectors that mean pods of ours: of workloads, budgets, policies, services, monitors, constraints."""
    spec = document.get("spec", {})
    kind = document["kind"]
    if kind in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
        yield "selector", spec["selector"]
    if kind == "Service":
        yield "selector", {"matchLabels": spec["selector"]}
    if kind == "Deployment":
        for constraint in spec["template"]["spec"].get("topologySpreadConstraints", []):
            yield "topologySpreadConstraints", constraint["labelSelector"]
    if kind == "NetworkPolicy":
        yield from ((place, each) for place, each in _policy_selectors(spec) if _is_ours(each))


def _policy_selectors(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "podSelector", spec["podSelector"]
    for direction, side in (("ingress", "from"), ("egress", "to")):
        for rule in spec.get(direction) or []:
            for peer in rule.get(side) or []:
                if "namespaceSelector" not in peer and "podSelector" in peer:
                    yield f"{direction}.{side}", peer["podSelector"]


def _is_ours(selector: dict[str, Any]) -> bool:
    """Tell whether a selector speaks of labels that the manifests give, and not operators."""
    keys = [*selector.get("matchLabels", {}), *(each["key"] for each in selector.get("matchExpressions", []))]
    return bool(keys) and all(key.startswith(SPEAKS_OF_US) for key in keys)


def _references(documents: list[Document], pod: Pod) -> Iterator[Finding]:
    """Yield what a pod refers to and nothing brings."""
    known = {
        "ConfigMap": {each["metadata"]["name"] for each in of_kind(documents, "ConfigMap")},
        "Secret": made_secrets(documents) | allowed_by_hand(documents),
        "PersistentVolumeClaim": {each["metadata"]["name"] for each in of_kind(documents, "PersistentVolumeClaim")},
        "ServiceAccount": {each["metadata"]["name"] for each in of_kind(documents, "ServiceAccount")},
    }
    for kind, name in sorted(set(referred(pod))):
        if name not in known[kind]:
            yield Finding(pod.where, f"there is no {kind} {name}")
    mounted = {volume["name"] for volume in pod.spec.get("volumes", [])}
    for container in pod.containers():
        wanted = {mount["name"] for mount in container.get("volumeMounts", [])}
        yield from (Finding(pod.where, f"volume {name} is mounted and not there") for name in sorted(wanted - mounted))


def referred(pod: Pod) -> Iterator[tuple[str, str]]:
    """Yield (kind, name) of everything that a pod needs by name; a source that is optional may be missing."""
    yield "ServiceAccount", pod.spec.get("serviceAccountName", "default")
    for volume in pod.spec.get("volumes", []):
        yield from _volume_references(volume)
    for container in pod.containers():
        for source in container.get("envFrom", []):
            yield from ((kind, source[key]["name"]) for kind, key in _REFERENCES if key in source)


_REFERENCES: Final = (("ConfigMap", "configMapRef"), ("Secret", "secretRef"))


def _volume_references(volume: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "secret" in volume:
        yield "Secret", volume["secret"]["secretName"]
    if "configMap" in volume:
        yield "ConfigMap", volume["configMap"]["name"]
    if "persistentVolumeClaim" in volume:
        yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]
    for source in volume.get("projected", {}).get("sources", []):
        if "secret" in source and not source["secret"].get("optional"):
            yield "Secret", source["secret"]["name"]


def made_secrets(documents: Iterable[Document]) -> set[str]:
    """Return the secrets that operators make from the resources that are there."""
    listed = list(documents)
    made = {each["spec"]["target"]["name"] for each in of_kind(listed, "ExternalSecret")}
    made |= {each["metadata"]["name"] for each in of_kind(listed, "KafkaUser", "Secret")}
    made |= {f"{each['metadata']['name']}-cluster-ca-cert" for each in of_kind(listed, "Kafka")}
    for cluster in of_kind(listed, "Cluster"):
        made |= {f"{cluster['metadata']['name']}-{what}" for what in ("ca", "superuser", "app")}
    return made


def allowed_by_hand(documents: list[Document]) -> set[str]:
    """Return the secrets that a person makes, since what would make them is not in the manifests."""
    return {name for kind, names in BY_HAND.items() if not any(of_kind(documents, kind)) for name in names}


def secrets_by_hand(documents: Iterable[Document]) -> set[str]:
    """Return the secrets that pods mount and nothing in the manifests makes."""
    listed = list(documents)
    wanted = {name for pod in pods(listed) for kind, name in referred(pod) if kind == "Secret"}
    return wanted - made_secrets(listed)


def _scale_targets(documents: list[Document]) -> Iterator[Finding]:
    deployments = {each["metadata"]["name"]: each for each in of_kind(documents, "Deployment")}
    for scaled in of_kind(documents, "ScaledObject"):
        target = deployments.get(scaled["spec"]["scaleTargetRef"]["name"])
        if target is None:
            yield Finding(name_of(scaled), "scales no Deployment that is there")
        elif "replicas" in target["spec"]:
            yield Finding(name_of(scaled), "its target has replicas of its own: each apply would reset them")
