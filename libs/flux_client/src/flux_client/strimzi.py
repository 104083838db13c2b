"""Kubernetes manifests for the brokers, for Strimzi (kafka.strimzi.io/v1): topics and logins, as dictionaries.

Pure: what the catalogue and `contracts/access.py` say, in Strimzi's words. A login's name is its KafkaUser's, and its
password is the secret that Strimzi makes, unless one is named. Manifests are in the catalogue's names: an installation on
Kubernetes has no `topic_prefix`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flux_common.contracts.access import Grant, Principal, Quota, agency_principal, service_principals
from flux_common.contracts.catalogue import REPLICATION, TOPICS, TopicSpec, topic_names

API_VERSION: Final = "kafka.strimzi.io/v1"
CLUSTER_LABEL: Final = "strimzi.io/cluster"
Manifest = dict[str, Any]
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class Cluster:
    """The Kafka resource that topics and logins belong to. `development` means one replica, and none must have a record."""

    name: str = "flux"
    namespace: str | None = None
    development: bool = False
    replicas: int | None = None

    @property
    def copies(self) -> int:
        """Return how many replicas a topic has."""
        return self.replicas or (1 if self.development else REPLICATION)


def kafka_topic(name: str, spec: TopicSpec, cluster: Cluster) -> Manifest:
    """Return the KafkaTopic of the topic `name`, which `spec` declares. Raises ValueError where Kubernetes has no such name."""
    config = spec.config(development=cluster.development)
    return _resource("KafkaTopic", name, cluster) | {
        "spec": {"partitions": spec.kafka_partitions, "replicas": cluster.copies, "config": config}
    }


def kafka_user(principal: Principal, cluster: Cluster, *, password_secret: Mapping[str, str] | None = None) -> Manifest:
    """Return the KafkaUser of a login: SCRAM-SHA-512, its grants, its quota.

    `password_secret` ({"name": …, "key": …}) names a secret that holds the password; without it Strimzi draws one. Raises
    ValueError where Kubernetes has no such name.
    """
    authentication: dict[str, Any] = {"type": "scram-sha-512"}
    if password_secret is not None:
        authentication["password"] = {"valueFrom": {"secretKeyRef": dict(password_secret)}}
    return _resource("KafkaUser", principal.name, cluster) | {
        "spec": {
            "authentication": authentication,
            "authorization": {"type": "simple", "acls": [_acl(grant) for grant in principal.grants]},
            "quotas": _quotas(principal.quota),
        }
    }


def agency_manifests(agency_id: str, cluster: Cluster, quota: Quota | None = None) -> list[Manifest]:
    """Return what one agency needs: its topics and its login. The services' logins name it, too (`service_users`)."""
    topics = [kafka_topic(spec.of(agency_id), spec, cluster) for spec in TOPICS if spec.per_agency]
    return [*topics, kafka_user(agency_principal(agency_id, quota), cluster)]


def service_users(agencies: Iterable[str], cluster: Cluster) -> list[Manifest]:
    """Return the logins of Flux itself on an installation of these agencies."""
    return [kafka_user(principal, cluster) for principal in service_principals(agencies)]


def internal_topics(cluster: Cluster) -> list[Manifest]:
    """Return the topics between services."""
    return [
        kafka_topic(name, spec, cluster) for spec in TOPICS if not spec.per_agency for name in topic_names(spec, [])
    ]


def _resource(kind: str, name: str, cluster: Cluster) -> Manifest:
    if not _NAME.fullmatch(name) or len(name) > 253:
        raise ValueError(f"Kubernetes has no name {name!r}: each part between dots ends with a letter or a digit")
    namespace = {"namespace": cluster.namespace} if cluster.namespace else {}
    metadata = {"name": name, **namespace, "labels": {CLUSTER_LABEL: cluster.name}}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata}


def _acl(grant: Grant) -> dict[str, Any]:
    return {
        "resource": {"type": str(grant.resource), "name": grant.name, "patternType": str(grant.pattern)},
        "operations": [str(operation) for operation in grant.operations],
    }


def _quotas(quota: Quota) -> dict[str, int]:
    return {
        "producerByteRate": quota.producer_byte_rate,
        "consumerByteRate": quota.consumer_byte_rate,
        "requestPercentage": quota.request_percentage,
    }
