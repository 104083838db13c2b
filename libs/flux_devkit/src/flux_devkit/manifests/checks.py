"""Every check of the manifests, by name. A check reads rendered documents, and says what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from flux_devkit.manifests import (
    agreement,
    alerts,
    brokers,
    hygiene,
    network,
    pod_security,
    rules_of_kinds,
    schemas,
    wiring,
)
from flux_devkit.manifests.documents import Document, Finding, pods
from flux_devkit.manifests.expected_edges import expected

Check = Callable[[list[Document]], Iterator[Finding]]


def pod_security_findings(documents: list[Document]) -> Iterator[Finding]:
    """Yield what the restricted Pod Security level forbids."""
    for pod in (*pods(documents), *pod_security.operated(documents)):
        yield from pod_security.findings(pod)


def network_findings(documents: list[Document]) -> Iterator[Finding]:
    """Yield connections that are there and not meant, and those that are meant and not there."""
    found, wanted = network.edges(documents), expected(documents)
    yield from (
        Finding("NetworkPolicy", f"{_said(edge)} is open, and should not be") for edge in sorted(found - wanted)
    )
    yield from (
        Finding("NetworkPolicy", f"{_said(edge)} is closed, and should not be") for edge in sorted(wanted - found)
    )


def _said(edge: network.Edge) -> str:
    return f"{edge[0]} → {edge[1]} {edge[2]}"


CHECKS: Final[dict[str, Check]] = {
    "kubernetes schemas": schemas.kubernetes_findings,
    "rules of kinds": rules_of_kinds.findings,
    "pod security": pod_security_findings,
    "network": network_findings,
    "wiring": wiring.findings,
    "scale": agreement.scale_findings,
    "settings": agreement.settings_findings,
    "drain": agreement.drain_findings,
    "connections": agreement.connection_findings,
    "rights": hygiene.rights_findings,
    "secrets": hygiene.secret_findings,
    "bounds": hygiene.bound_findings,
    "metrics": alerts.metric_findings,
}


def checks_for(target: str, repository: Path, crd_schemas: Path | None) -> dict[str, Check]:
    """Return the checks that the base or an overlay must pass; operators' schemas only where they are given."""
    checks = dict(CHECKS)
    checks["brokers"] = lambda documents: brokers.findings(documents, development=target == "dev")
    checks["runbooks"] = lambda documents: alerts.runbook_findings(documents, repository)
    if crd_schemas is not None:
        checks["operators' schemas"] = lambda documents: schemas.operator_findings(documents, crd_schemas)
    if target != "dev":
        checks["production"] = agreement.production_findings
    if target == "production":
        checks["digests"] = hygiene.digest_findings
    elif target == "staging":
        checks["exact images"] = hygiene.exact_findings
    return checks
