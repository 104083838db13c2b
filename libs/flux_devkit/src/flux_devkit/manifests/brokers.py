"""What the manifests say of the brokers, and the code too: topics, logins with grants and quotas, replication, consumer groups.

Nothing here is believed because a manifest says it: whether one copy is enough is said by whoever knows which installation is
judged, and topics and logins are those that would be generated for the registry that is in the manifests. An overlay can patch
all of them. More copies than the catalogue asks for are no mistake; another number that must have a record is one, either way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from flux_client.strimzi import Cluster, Manifest, agency_manifests, internal_topics, service_users
from flux_common.contracts.access import AGENCY_QUOTA
from flux_common.contracts.catalogue import GROUPS, RUNS
from flux_devkit.manifests.agreement import agencies_of
from flux_devkit.manifests.documents import Document, Finding, name_of, of_kind

COPIES: Final = (
    *("default.replication.factor", "offsets.topic.replication.factor", "transaction.state.log.replication.factor"),
)
IN_SYNC: Final = ("min.insync.replicas", "transaction.state.log.min.isr")
NEVER: Final = ("auto.create.topics.enable", "unclean.leader.election.enable")
ROLES: Final = ("controller", "broker")


def findings(documents: list[Document], *, development: bool) -> Iterator[Finding]:
    """Yield what of topics, logins, replication and groups is missing, unknown, or not as the code has it."""
    yield from _groups(documents)
    cluster = Cluster(development=development)
    for kafka in of_kind(documents, "Kafka"):
        yield from (Finding(name_of(kafka), what) for what in _settings(kafka["spec"]["kafka"], cluster))
        yield from (Finding(name_of(kafka), what) for what in _nodes(documents, cluster))
        yield from _generated(documents, cluster)


def _groups(documents: list[Document]) -> Iterator[Finding]:
    known = {group.name: group for group in GROUPS}
    for scaled in of_kind(documents, "ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            name, topic = trigger["metadata"]["consumerGroup"], trigger["metadata"].get("topic")
            group = known.get(name)
            if group is None:
                yield Finding(name_of(scaled), f"the code knows no group {name}")
            elif topic != (None if group.topic.per_agency else group.topic.name):
                yield Finding(name_of(scaled), f"group {name} does not read {topic}")


def _settings(kafka: dict[str, Any], cluster: Cluster) -> Iterator[str]:
    """Yield settings of the brokers under which a record counts that the catalogue's would not let count."""
    said = {name: str(value).lower() for name, value in (kafka.get("config") or {}).items()}
    in_sync = RUNS.config(development=cluster.development)["min.insync.replicas"]
    for name in COPIES:
        if int(said.get(name, 0)) < cluster.copies:
            yield f"{name} is {said.get(name)}, and the catalogue has {cluster.copies} copies"
    for name, wanted in (*((name, in_sync) for name in IN_SYNC), *((name, "false") for name in NEVER)):
        if said.get(name) != wanted:
            yield f"{name} is {said.get(name)}, and has to be {wanted}"


def _nodes(documents: list[Document], cluster: Cluster) -> Iterator[str]:
    for role in ROLES:
        pools = [pool["spec"] for pool in of_kind(documents, "KafkaNodePool") if role in pool["spec"]["roles"]]
        nodes = sum(pool["replicas"] for pool in pools)
        if nodes < cluster.copies:
            yield f"{nodes} nodes have the role {role}, and the catalogue has {cluster.copies} copies"


def _generated(documents: list[Document], cluster: Cluster) -> Iterator[Finding]:
    """Yield topics and logins that would not be generated, those that are missing, and those that differ."""
    wanted = {name_of(each): each for each in _would_be(documents, cluster)}
    found = {name_of(each): each for each in of_kind(documents, "KafkaTopic", "KafkaUser")}
    yield from (Finding(name, "the code knows no such topic or login") for name in sorted(found.keys() - wanted.keys()))
    yield from (Finding(name, "is in the code, and not here") for name in sorted(wanted.keys() - found.keys()))
    for name in sorted(wanted.keys() & found.keys()):
        differs = _topic if wanted[name]["kind"] == "KafkaTopic" else _login
        yield from (Finding(name, what) for what in differs(found[name]["spec"], wanted[name]["spec"]))


def _would_be(documents: list[Document], cluster: Cluster) -> list[Manifest]:
    """Return what would be generated for the registry in the manifests."""
    entries = {agency["id"]: agency.get("quota") or {} for agency in agencies_of(documents)}
    quotas = {agency: replace(AGENCY_QUOTA, **quota) for agency, quota in sorted(entries.items())}
    own = [each for agency, quota in quotas.items() for each in agency_manifests(agency, cluster, quota)]
    return [*internal_topics(cluster), *service_users(quotas, cluster), *own]


def _topic(said: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    if (said.get("partitions"), said.get("config")) != (wanted["partitions"], wanted["config"]):
        yield "its Kafka partitions or settings are not the catalogue's"
    if said.get("replicas", 0) < wanted["replicas"]:
        yield f"has {said.get('replicas')} copies, and the catalogue has {wanted['replicas']}"


def _login(said: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    if _grants(said) != _grants(wanted):
        yield "its grants are not the code's"
    if said.get("quotas") != wanted["quotas"]:
        yield "its quota is not the registry's"


def _grants(user: dict[str, Any]) -> tuple[Any, list[str]]:
    authorization = user.get("authorization") or {}
    return authorization.get("type"), sorted(json.dumps(acl, sort_keys=True) for acl in authorization.get("acls") or [])
