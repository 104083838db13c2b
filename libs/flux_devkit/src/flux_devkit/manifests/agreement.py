"""What manifests and code must say alike: Kafka partitions, settings, logins of programs, times to drain, connections."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import yaml

from flux_common.contracts.access import principal_of_service
from flux_common.contracts.catalogue import GROUPS, GroupSpec
from flux_common.kafka.producing import CLOSE_SECONDS as PRODUCER_CLOSE_SECONDS
from flux_common.kafka.starting import CLOSE_SECONDS as CONSUMER_CLOSE_SECONDS
from flux_common.kafka.work import COMMIT_SECONDS
from flux_common.runtime.service import CANCEL_GRACE_S
from flux_devkit.manifests.documents import Document, Finding, name_of, named, of_kind
from flux_devkit.manifests.programs import SERVICES, Program, programs
from flux_devkit.manifests.quantities import quantity
from flux_transform.domain.limits import DEFAULT_LIMITS
from flux_transform.wiring import grace_of

SPARE_SECONDS: Final = 10
RESERVED_CONNECTIONS: Final = 20  # the operator, replication, backups, the jobs, a person
DECODER_OVERHEAD_BYTES: Final = 512 * 2**20


def agencies_of(documents: Iterable[Document]) -> list[dict[str, Any]]:
    """Return the entries of the registry that is in the manifests."""
    text = named(documents, "ConfigMap", "flux-agencies")["data"]["agencies.yaml"]
    agencies: list[dict[str, Any]] = yaml.safe_load(text)["agencies"]
    return agencies


def lanes(group: GroupSpec, agencies: int) -> int:
    """Return how many Kafka partitions a group shares, and so how many members can have work."""
    return group.topic.kafka_partitions * (agencies if group.topic.per_agency else 1)


def members_max(service: str, agencies: int) -> int:
    """Return how many processes of a service can have work."""
    return max(lanes(group, agencies) for group in GROUPS if group.service == service)


def replicas(documents: Iterable[Document], service: str) -> tuple[int, int]:
    """Return the least and the greatest number of processes of a service."""
    listed = list(documents)
    for scaled in of_kind(listed, "ScaledObject"):
        if scaled["spec"]["scaleTargetRef"]["name"] == service:
            return scaled["spec"]["minReplicaCount"], scaled["spec"]["maxReplicaCount"]
    count = named(listed, "Deployment", service)["spec"].get("replicas", 1)
    return count, count


def scale_findings(documents: list[Document]) -> Iterator[Finding]:
    """Yield services that may have more processes than there are Kafka partitions for."""
    agencies = len(agencies_of(documents))
    for service in SERVICES:
        most, bound = replicas(documents, service)[1], members_max(service, agencies)
        if most > bound:
            yield Finding(f"Deployment/{service}", f"up to {most} processes for {bound} Kafka partitions")


def settings_findings(documents: list[Document]) -> Iterator[Finding]:
    """Yield variables that a program does not read, and required ones that it is not given."""
    for program in programs(documents):
        given = {key for key in program.environment if key.startswith("FLUX_")}
        required = {env for env, setting in program.settings.items() if setting.default == "(required)"}
        yield from (
            Finding(program.pod.where, f"{env} is no setting of {program.name}")
            for env in sorted(given - program.settings.keys())
        )
        yield from (Finding(program.pod.where, f"{env} is not given") for env in sorted(required - given))
        yield from _login(program)


def production_findings(documents: list[Document]) -> Iterator[Finding]:
    """Yield programs that are not told that they are in production, and so accept what is fit for development alone."""
    for program in programs(documents):
        if program.value("FLUX_ENVIRONMENT") != "production":
            yield Finding(program.pod.where, "FLUX_ENVIRONMENT is not production")


def _login(program: Program) -> Iterator[Finding]:
    """Yield a login that is another's: the name, or the secret that holds its password."""
    wanted = principal_of_service(program.name)
    said = program.environment.get("FLUX_KAFKA_SASL_USERNAME")
    if said is not None and said != wanted:
        yield Finding(program.pod.where, f"logs in to Kafka as {said}, and is {wanted}")
    for volume in program.pod.spec.get("volumes", []):
        if volume["name"] == "kafka" and volume["secret"]["secretName"] != wanted:
            yield Finding(program.pod.where, f"has the password of {volume['secret']['secretName']}")


def drain_findings(documents: list[Document]) -> Iterator[Finding]:
    """Yield services that the kubelet would kill while they drain, and probes that nobody answers."""
    for program in programs(documents):
        if program.name in SERVICES:
            has, needs = program.pod.spec["terminationGracePeriodSeconds"], grace_needed_s(program)
            if has < needs:
                yield Finding(program.pod.where, f"has {has} s to end, and needs {needs:g}")
            yield from (Finding(program.pod.where, what) for what in _probes(program))
        if program.name == "transform":
            yield from (Finding(program.pod.where, what) for what in _transform(program))


def grace_needed_s(program: Program) -> float:
    """Return the time that a service may take to end: drain, cancel, close consumer and producer, ten seconds."""
    drain = int(program.value("FLUX_OPS_DRAIN_GRACE_MS")) / 1000
    return drain + CANCEL_GRACE_S + max(CONSUMER_CLOSE_SECONDS, PRODUCER_CLOSE_SECONDS) + SPARE_SECONDS


def _probes(program: Program) -> Iterator[str]:
    ports = {port["name"]: port["containerPort"] for port in program.container.get("ports", [])}
    if str(ports.get("ops")) != program.value("FLUX_OPS_PORT") or program.value("FLUX_OPS_HOST") != "0.0.0.0":
        yield "the port `ops` is not the one that the service opens to the pod"
    for probe, path in (("startupProbe", "/startupz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")):
        asked = program.container.get(probe, {}).get("httpGet", {})
        if (asked.get("path"), asked.get("port")) != (path, "ops"):
            yield f"{probe} does not ask {path} on the operations port"


def _transform(program: Program) -> Iterator[str]:
    """A worker counts the node's cores, not its limit: so both are said, and memory is there for each decoder's limit."""
    limits = program.container["resources"]["limits"]
    cores = quantity(limits["cpu"])
    for env in ("FLUX_WORK_ITEMS_AT_ONCE", "FLUX_WORK_PROCESSES"):
        if float(program.value(env)) != cores:
            yield f"{env} is {program.value(env)}, and the limit is {cores:g} cores"
    needed = (
        float(program.value("FLUX_WORK_PROCESSES")) * DEFAULT_LIMITS.address_space_bytes_max + DECODER_OVERHEAD_BYTES
    )
    if quantity(limits["memory"]) < needed:
        yield f"memory is {limits['memory']}; its decoders may take {needed / 2**30:g} GiB"
    items_s = grace_of(int(program.value("FLUX_OPS_DRAIN_GRACE_MS")) / 1000)[0]
    if items_s < DEFAULT_LIMITS.task_wall_seconds_max + COMMIT_SECONDS:
        yield f"an item has {items_s:g} s to end its slice; the longest takes {DEFAULT_LIMITS.task_wall_seconds_max} s"


def connection_findings(documents: list[Document]) -> Iterator[Finding]:
    """Yield a PostgreSQL that the pools of all processes can exhaust."""
    for cluster in of_kind(documents, "Cluster"):
        has, needs = connections(documents, cluster["spec"])
        if needs > has:
            yield Finding(name_of(cluster), f"max_connections is {has}; the pools may take {needs}")


def connections(documents: list[Document], cluster: dict[str, Any]) -> tuple[int, int]:
    """Return max_connections, and what may be taken: every pool of every process, of which a roll-out makes two for each.

    Pods that are ending keep their pools while they drain, and count neither as replicas nor as surge: new ones that are
    ready sooner than old ones have ended are there beside all of them.
    """
    has = int(cluster["postgresql"]["parameters"]["max_connections"])
    pools = {each.name: int(each.value("FLUX_POSTGRES_POOL_MAX")) for each in programs(documents) if _has_pool(each)}
    taken = sum(2 * replicas(documents, service)[1] * pool for service, pool in pools.items())
    return has, taken + RESERVED_CONNECTIONS


def _has_pool(program: Program) -> bool:
    return program.name in SERVICES and "FLUX_POSTGRES_DSN" in program.environment


def documented(text: str) -> dict[str, str]:
    """Return the table of numbers of a document: `| name | value |` rows under the heading `## Numbers`."""
    section = text.partition("\n## Numbers")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", section, re.M)
    return {name: value for name, value in rows if not set(name) <= {"-", " "} and value != "value"}
