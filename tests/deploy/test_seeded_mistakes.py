"""Each kind of mistake, planted into a rendered overlay (production, where none is named), is found by its check alone.

A check that could not fail would prove nothing; a mistake that three checks report hides which of them works.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flux_devkit import home
from flux_devkit.manifests import rendering
from flux_devkit.manifests.checks import Check, checks_for
from flux_devkit.manifests.documents import Document, named, of_kind

REPOSITORY = Path(__file__).resolve().parents[2]
CORPORA = home.corpora() / "crd-schemas"
Plant = Callable[[list[Document]], Any]


def deployment(documents: list[Document], name: str, kind: str = "Deployment") -> dict[str, Any]:
    """Return the pod's spec of a Deployment or Job."""
    spec: dict[str, Any] = named(documents, kind, name)["spec"]["template"]["spec"]
    return spec


def container(documents: list[Document], name: str) -> dict[str, Any]:
    """Return the container of a Deployment."""
    found: dict[str, Any] = deployment(documents, name)["containers"][0]
    return found


def spec(documents: list[Document], kind: str, name: str) -> dict[str, Any]:
    """Return the spec of a document."""
    found: dict[str, Any] = named(documents, kind, name)["spec"]
    return found


def settings(documents: list[Document], name: str, kind: str = "Deployment") -> dict[str, str]:
    """Return the data of a service's or job's own ConfigMap."""
    own = deployment(documents, name, kind)["containers"][0]["envFrom"][-1]["configMapRef"]["name"]
    found: dict[str, str] = named(documents, "ConfigMap", own)["data"]
    return found


def trigger(documents: list[Document], name: str) -> dict[str, Any]:
    """Return the first trigger's metadata of a ScaledObject."""
    found: dict[str, Any] = spec(documents, "ScaledObject", name)["triggers"][0]["metadata"]
    return found


def listener(documents: list[Document]) -> dict[str, Any]:
    """Return the brokers' listener for clients."""
    found: dict[str, Any] = spec(documents, "Kafka", "flux")["kafka"]["listeners"][0]
    return found


def rule(documents: list[Document]) -> dict[str, Any]:
    """Return the first alert."""
    found: dict[str, Any] = spec(documents, "PrometheusRule", "flux")["groups"][0]["rules"][0]
    return found


def role() -> Document:
    """Return a right to read every secret."""
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "all"}, "rules": rules}


def secret() -> Document:
    """Return a secret with its content."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"password": "hunter2"}}


def without(documents: list[Document], kind: str, name: str) -> None:
    """Take a document away."""
    documents.remove(named(documents, kind, name))


def dashboard(documents: list[Document]) -> None:
    """Let a panel ask for a metric that is not there."""
    data = named(documents, "ConfigMap", "flux-dashboard")["data"]
    content = json.loads(data["flux.json"])
    content["panels"][1]["targets"][0]["expr"] = "sum(flux_isolation_breaches_total)"
    data["flux.json"] = json.dumps(content)


TOPIC = {"apiVersion": "kafka.strimzi.io/v1", "kind": "KafkaTopic", "metadata": {"name": "flux-internal.gossip.v1"}}
USER = {"apiVersion": "kafka.strimzi.io/v1", "kind": "KafkaUser", "metadata": {"name": "flux.mallory"}}
SCRAM = {"authentication": {"type": "scram-sha-512"}, "authorization": {"type": "simple", "acls": []}}

EVERY_TOPIC = {"resource": {"type": "topic", "name": "flux", "patternType": "prefix"}, "operations": ["Read"]}


def small_topics(documents: list[Document]) -> None:
    """Do what the dev overlay's patch does to every topic."""
    for topic in of_kind(documents, "KafkaTopic"):
        topic["spec"]["replicas"] = 1
        topic["spec"]["config"]["min.insync.replicas"] = "1"


SEEDS: list[tuple[str, str, Plant]] = [
    ("an unknown field", "kubernetes schemas", lambda d: deployment(d, "ingest").update(tolerateEverything=True)),
    ("a wrong type", "kubernetes schemas", lambda d: spec(d, "Deployment", "ingest").update(minReadySeconds="ten")),
    (
        "a field that the operator does not know",
        "operators' schemas",
        lambda d: spec(d, "Kafka", "flux")["kafka"].update(tiers=2),
    ),
    (
        "a value that the operator does not take",
        "operators' schemas",
        lambda d: spec(d, "ScheduledBackup", "flux-postgres").update(method="tape"),
    ),
    (
        "a minimum above the maximum",
        "rules of kinds",
        lambda d: spec(d, "ScaledObject", "audit").update(minReplicaCount=6),
    ),
    (
        "a hasty scale-down",
        "rules of kinds",
        lambda d: spec(d, "ScaledObject", "audit")["advanced"]["horizontalPodAutoscalerConfig"]["behavior"][
            "scaleDown"
        ].update(stabilizationWindowSeconds=60),
    ),
    ("a group read from its end", "rules of kinds", lambda d: trigger(d, "audit").update(offsetResetPolicy="latest")),
    (
        "a password login that expires",
        "rules of kinds",
        lambda d: spec(d, "KafkaUser", "flux-ingest")["authentication"].update(validityDays=30),
    ),
    (
        "too few instances for a synchronous standby",
        "rules of kinds",
        lambda d: spec(d, "Cluster", "flux-postgres").update(instances=1),
    ),
    (
        "volumes that the brokers cannot write to",
        "rules of kinds",
        lambda d: spec(d, "KafkaNodePool", "broker")["template"]["pod"]["securityContext"].pop("fsGroup"),
    ),
    (
        "a privileged container",
        "pod security",
        lambda d: container(d, "transform")["securityContext"].update(privileged=True),
    ),
    (
        "a folder of the node",
        "pod security",
        lambda d: deployment(d, "transform")["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
    ),
    (
        "a pod that may be root",
        "pod security",
        lambda d: deployment(d, "audit")["securityContext"].update(runAsNonRoot=False),
    ),
    (
        "a broker that keeps its capabilities",
        "pod security",
        lambda d: spec(d, "KafkaNodePool", "broker")["template"].pop("kafkaContainer"),
    ),
    ("a missing policy edge", "network", lambda d: spec(d, "NetworkPolicy", "ingest")["egress"].pop(0)),
    ("no default-deny", "network", lambda d: without(d, "NetworkPolicy", "default-deny")),
    (
        "a way to the database for transform",
        "network",
        lambda d: spec(d, "NetworkPolicy", "transform")["egress"].append(
            {"ports": [{"port": 5432, "protocol": "TCP"}]}
        ),
    ),
    ("a listener that is open to everybody", "network", lambda d: listener(d).pop("networkPolicyPeers")),
    (
        "a listener that is open to a stranger",
        "network",
        lambda d: listener(d)["networkPolicyPeers"].append({"namespaceSelector": {}}),
    ),
    (
        "a port that is open to everybody",
        "network",
        lambda d: spec(d, "NetworkPolicy", "metrics")["ingress"][0].pop("from"),
    ),
    (
        "the machines' metadata within reach",
        "network",
        lambda d: spec(d, "NetworkPolicy", "transform")["egress"][1]["to"][0]["ipBlock"]["except"].remove(
            "169.254.0.0/16"
        ),
    ),
    (
        "a selector that selects nothing",
        "wiring",
        lambda d: spec(d, "PodDisruptionBudget", "audit")["selector"]["matchLabels"].update(
            {"app.kubernetes.io/name": "auditor"}
        ),
    ),
    ("a secret that nobody makes", "wiring", lambda d: without(d, "ExternalSecret", "flux-audit-tree-heads")),
    (
        "a volume that is not there",
        "wiring",
        lambda d: container(d, "audit")["volumeMounts"].append({"name": "x", "mountPath": "/x"}),
    ),
    ("replicas that each apply resets", "wiring", lambda d: spec(d, "Deployment", "ingest").update(replicas=2)),
    (
        "replicas above the Kafka partitions",
        "scale",
        lambda d: spec(d, "ScaledObject", "transform").update(maxReplicaCount=13),
    ),
    (
        "a topic that the code does not know",
        "brokers",
        lambda d: d.append(TOPIC | {"spec": {"partitions": 1, "replicas": 3}}),
    ),
    ("a topic of the code that is forgotten", "brokers", lambda d: without(d, "KafkaTopic", "flux-internal.work.v1")),
    (
        "another number of Kafka partitions",
        "brokers",
        lambda d: spec(d, "KafkaTopic", "flux-internal.work.v1").update(partitions=24),
    ),
    (
        "a group that the code does not know",
        "brokers",
        lambda d: trigger(d, "audit").update(consumerGroup="flux-audit-rumours"),
    ),
    ("a group on another topic", "brokers", lambda d: trigger(d, "audit").update(topic="flux-internal.work.v1")),
    ("a login that the code does not know", "brokers", lambda d: d.append(USER | {"spec": SCRAM})),
    ("a topic with one copy", "brokers", lambda d: spec(d, "KafkaTopic", "flux-internal.runs.v1").update(replicas=1)),
    ("topics patched to development's size", "brokers", small_topics),
    (
        "brokers that take a record with one copy",
        "brokers",
        lambda d: spec(d, "Kafka", "flux")["kafka"]["config"].update({"min.insync.replicas": 1}),
    ),
    (
        "transactions with one copy",
        "brokers",
        lambda d: spec(d, "Kafka", "flux")["kafka"]["config"].update({"transaction.state.log.replication.factor": 1}),
    ),
    (
        "topics that come by themselves",
        "brokers",
        lambda d: spec(d, "Kafka", "flux")["kafka"]["config"].pop("auto.create.topics.enable"),
    ),
    ("fewer brokers than copies", "brokers", lambda d: spec(d, "KafkaNodePool", "broker").update(replicas=2)),
    (
        "a grant that the code does not give",
        "brokers",
        lambda d: spec(d, "KafkaUser", "flux.nasa")["authorization"]["acls"].append(EVERY_TOPIC),
    ),
    ("a login that may do all", "brokers", lambda d: spec(d, "KafkaUser", "flux.nasa").pop("authorization")),
    (
        "a quota that the registry does not give",
        "brokers",
        lambda d: spec(d, "KafkaUser", "flux.nasa")["quotas"].update(producerByteRate=2**40),
    ),
    ("a variable that nothing reads", "settings", lambda d: settings(d, "ingest").update(FLUX_INTAKE_SPEED="full")),
    ("another service's setting", "settings", lambda d: settings(d, "ingest").update(FLUX_DISPATCH_KEEP_DAYS="1")),
    ("a setting that is missing", "settings", lambda d: settings(d, "ingest").pop("FLUX_AGENCIES_FILE")),
    (
        "another service's login",
        "settings",
        lambda d: settings(d, "ingest").update(FLUX_KAFKA_SASL_USERNAME="flux-audit"),
    ),
    ("a job of development", "production", lambda d: settings(d, "migrate", "Job").pop("FLUX_ENVIRONMENT")),
    (
        "too little time to drain",
        "drain",
        lambda d: deployment(d, "transform").update(terminationGracePeriodSeconds=30),
    ),
    (
        "a probe that asks the wrong thing",
        "drain",
        lambda d: container(d, "audit")["livenessProbe"]["httpGet"].update(path="/readyz"),
    ),
    ("more decoders than cores", "drain", lambda d: settings(d, "transform").update(FLUX_WORK_PROCESSES="8")),
    ("pools above max_connections", "connections", lambda d: settings(d, "ingest").update(FLUX_POSTGRES_POOL_MAX="32")),
    (
        "a roll-out that PostgreSQL has no room for",
        "connections",
        lambda d: spec(d, "Cluster", "flux-postgres")["postgresql"]["parameters"].update(max_connections="200"),
    ),
    ("a right at the API", "rights", lambda d: d.append(role())),
    ("a mounted token", "rights", lambda d: deployment(d, "audit").update(automountServiceAccountToken=True)),
    ("a literal secret", "secrets", lambda d: d.append(secret())),
    (
        "a password among the variables",
        "secrets",
        lambda d: container(d, "audit").update(env=[{"name": "PGPASSWORD", "value": "x"}]),
    ),
    (
        "a password in an address",
        "secrets",
        lambda d: settings(d, "audit").update(FLUX_POSTGRES_DSN="postgresql://a:b@c/d"),
    ),
    ("no limit of memory", "bounds", lambda d: container(d, "audit")["resources"]["limits"].pop("memory")),
    (
        "a writable root",
        "bounds",
        lambda d: container(d, "audit")["securityContext"].update(readOnlyRootFilesystem=False),
    ),
    ("a /tmp without end", "bounds", lambda d: deployment(d, "otel-collector")["volumes"][1].update(emptyDir={})),
    (
        "an alert on a metric that does not exist",
        "metrics",
        lambda d: rule(d).update(expr="sum(flux_isolation_breaches_total) > 0"),
    ),
    (
        "an alert on a label that does not exist",
        "metrics",
        lambda d: rule(d).update(expr="sum by (run_id) (flux_runs_open) > 0"),
    ),
    ("a panel on a metric that does not exist", "metrics", dashboard),
    (
        "a runbook that does not exist",
        "runbooks",
        lambda d: rule(d)["annotations"].update(runbook="docs/runbooks.md#nowhere"),
    ),
    ("an image by tag", "digests", lambda d: container(d, "audit").update(image="registry.example/flux/audit:0.1.0")),
]


# Checks that are for one overlay alone, and what only an overlay's size makes a mistake.
ELSEWHERE: list[tuple[str, str, str, Plant]] = [
    (
        "staging",
        "an image that floats",
        "exact images",
        lambda d: container(d, "audit").update(image="flux/audit:latest"),
    ),
    (
        "staging",
        "a record that counts with one copy, in staging",
        "brokers",
        lambda d: spec(d, "KafkaTopic", "flux-internal.runs.v1")["config"].update({"min.insync.replicas": "1"}),
    ),
    (
        "dev",
        "a record that waits for a copy that dev has not",
        "brokers",
        lambda d: spec(d, "KafkaTopic", "flux-internal.runs.v1")["config"].update({"min.insync.replicas": "2"}),
    ),
]
CASES = [*(("production", *seed) for seed in SEEDS), *ELSEWHERE]


def checks_of(target: str) -> dict[str, Check]:
    """Return the checks of an overlay; those by the operators' schemas where these are there."""
    return checks_for(target, REPOSITORY, CORPORA if CORPORA.is_dir() else None)


@pytest.mark.parametrize(("target", "mistake", "check", "plant"), CASES, ids=[case[1] for case in CASES])
def test_a_planted_mistake_is_found_by_the_check_that_is_meant_for_it(
    rendered: Callable[[str], list[Document]], target: str, mistake: str, check: str, plant: Plant
) -> None:
    """And by no other check."""
    checks = checks_of(target)
    if check == "operators' schemas" and check not in checks:
        pytest.skip(f"no schemas of operators at {CORPORA}: set FLUX_CORPORA")
    documents = rendered(target)
    plant(documents)
    found = {name for name, judge in checks.items() if list(judge(documents))}

    assert found == {check}, mistake


def test_every_check_is_proved() -> None:
    """No check of any overlay stands without a mistake that it finds."""
    checks = {name for target in rendering.targets(REPOSITORY / "deploy/k8s") for name in checks_of(target)}

    assert checks | {"operators' schemas"} == {check for _, _, check, _ in CASES}
