"""Who can reach whom, computed from the NetworkPolicies and the labels of pods.

A connection is there if the sender's policies let it out and the receiver's let it in. A pod that no policy selects for a
direction is open in it. Pods that operators make, and places outside of the namespace, are not in the manifests: `OPERATED` and
`OUTSIDE` say which labels they have, as the operators' manuals do. Policies add up, so the one that Strimzi writes for the
brokers counts, too: it opens each listener to its `networkPolicyPeers`, and to everybody where there are none. What an address
range means is not resolved: a rule for one is an edge to `internet` where it leaves private ranges out, to `anywhere` where it
does not. A rule that names nobody lets everybody in, and out to `anywhere`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flux_devkit.manifests.documents import NAMESPACE, Document, named, of_kind, pods, selects

METADATA_ADDRESS: Final = "169.254.0.0/16"
EVERYBODY: Final[dict[str, Any]] = {"namespaceSelector": {}}
Edge = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Place:
    """Somebody who sends or receives: a name, the namespace's labels, the pod's labels; `ours` are under our policies."""

    name: str
    namespace: str
    labels: Mapping[str, str]

    @property
    def ours(self) -> bool:
        """Tell whether it is in Flux's namespace."""
        return self.namespace == NAMESPACE

    @property
    def namespace_labels(self) -> Mapping[str, str]:
        """Return the label that every namespace has."""
        return {"kubernetes.io/metadata.name": self.namespace}


def _strimzi(name: str) -> dict[str, str]:
    return {"strimzi.io/cluster": "flux", "strimzi.io/name": f"flux-{name}"}


KAFKA: Final = Place("kafka", NAMESPACE, _strimzi("kafka"))
ENTITY_OPERATOR: Final = Place("kafka-entity-operator", NAMESPACE, _strimzi("entity-operator"))
POSTGRES: Final = Place("postgres", NAMESPACE, {"cnpg.io/cluster": "flux-postgres"})
OUTSIDE: Final = (
    Place("dns", "kube-system", {"k8s-app": "kube-dns"}),
    Place("prometheus", "monitoring", {"app.kubernetes.io/name": "prometheus"}),
    Place("traces", "monitoring", {"app.kubernetes.io/name": "traces"}),
    Place("keda", "keda", {"app.kubernetes.io/name": "keda-operator"}),
    Place("strimzi", "strimzi", {"strimzi.io/kind": "cluster-operator"}),
    Place("cnpg", "cnpg-system", {"app.kubernetes.io/name": "cloudnative-pg"}),
    Place("stranger", "elsewhere", {"app": "stranger"}),
    Place("bystander", NAMESPACE, {"app": "bystander"}),
)


def places(documents: Iterable[Document]) -> list[Place]:
    """Return everybody: the pods of the manifests, of the operators' resources in them, and the outside."""
    listed = list(documents)
    own = [Place(pod.where.partition("/")[2], NAMESPACE, pod.labels) for pod in pods(listed)]
    operated = [
        place
        for kind, name, made in (("Kafka", "flux", (KAFKA, ENTITY_OPERATOR)), ("Cluster", "flux-postgres", (POSTGRES,)))
        if _exists(listed, kind, name)
        for place in made
    ]
    return [*own, *operated, *OUTSIDE]


def edges(documents: Iterable[Document]) -> set[Edge]:
    """Return every connection that the policies let through: (from, to, `port/protocol`)."""
    listed = list(documents)
    everybody = places(listed)
    policies = [*of_kind(listed, "NetworkPolicy"), *_written_by_strimzi(listed)]
    found = {
        (one.name, other.name, port)
        for one in everybody
        for other in everybody
        if one.ours or other.ours
        for port in _both(_ports(policies, one, other, "egress"), _ports(policies, other, one, "ingress"))
    }
    return found | {edge for one in everybody if one.ours for edge in _to_addresses(policies, one)}


def _written_by_strimzi(documents: list[Document]) -> Iterator[Document]:
    """Yield the policy of each cluster's brokers, as far as listeners say what is in it; the rest of it is in our own, too."""
    for kafka in of_kind(documents, "Kafka"):
        pods = {"matchLabels": {"strimzi.io/name": f"{kafka['metadata']['name']}-kafka"}}
        rules = [
            {"from": listener.get("networkPolicyPeers"), "ports": [{"port": listener["port"]}]}
            for listener in kafka["spec"]["kafka"]["listeners"]
        ]
        yield {"spec": {"podSelector": pods, "policyTypes": ["Ingress"], "ingress": rules}}


def _exists(documents: list[Document], kind: str, name: str) -> bool:
    try:
        return bool(named(documents, kind, name))
    except LookupError:
        return False


def _both(out: set[str], into: set[str]) -> set[str]:
    """Return the ports that both sides allow; `*` is every port."""
    if "*" in out:
        return into
    return out if "*" in into else out & into


def _ports(policies: list[Document], subject: Place, peer: Place, direction: str) -> set[str]:
    """Return the ports on which `subject` may speak with `peer` in one direction."""
    if not subject.ours:
        return {"*"}
    applying = list(_applying(policies, subject, direction))
    if not applying:
        return {"*"}
    side = "to" if direction == "egress" else "from"
    return {
        port
        for policy in applying
        for rule in policy["spec"].get(direction) or []
        if any(_is(peer, each) for each in rule.get(side) or ([EVERYBODY] if side == "from" else []))
        for port in _rule_ports(rule)
    }


def _applying(policies: list[Document], subject: Place, direction: str) -> Iterator[Document]:
    for policy in policies:
        types = [each.lower() for each in policy["spec"].get("policyTypes", ["Ingress"])]
        if direction in types and selects(policy["spec"].get("podSelector"), subject.labels):
            yield policy


def _is(place: Place, peer: dict[str, Any]) -> bool:
    """Tell whether a rule's peer means this place."""
    if "ipBlock" in peer:
        return False
    by_namespace = "namespaceSelector" in peer
    inside = selects(peer["namespaceSelector"], place.namespace_labels) if by_namespace else place.ours
    return inside and selects(peer.get("podSelector"), place.labels)


def _rule_ports(rule: dict[str, Any]) -> list[str]:
    return [f"{port.get('port', '*')}/{port.get('protocol', 'TCP')}" for port in rule.get("ports") or []] or ["*"]


def _to_addresses(policies: list[Document], subject: Place) -> Iterator[Edge]:
    """Yield edges to addresses: of rules with an address range, and of those that name nobody."""
    for policy in _applying(policies, subject, "egress"):
        for rule in policy["spec"].get("egress") or []:
            blocks = [each["ipBlock"] for each in rule.get("to") or [] if "ipBlock" in each]
            names = {"internet" if METADATA_ADDRESS in block.get("except", []) else "anywhere" for block in blocks}
            for name in names or (set() if rule.get("to") else {"anywhere"}):
                yield from ((subject.name, name, port) for port in _rule_ports(rule))
