"""The connections that Flux needs, and no other: what the NetworkPolicies of each overlay must add up to.

Written by hand, and read by people: this is the answer to "what can reach what". Transform reaches stores, ingest the key sets
of issuers, both by HTTPS outside of private ranges. Brokers and controllers read their certificates from the API server as they
start (Strimzi writes `${strimzisecrets:…}` into their settings since 0.49), the entity operator watches topics and users there,
PostgreSQL's instances ask it who is the primary, and reach the store of backups; no label names the API server, so it is
"anywhere". Everything else is refused, the database to transform and the other way round for instance, and anything from a
bystander in the same namespace.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from flux_devkit.manifests.documents import Document, of_kind, pods
from flux_devkit.manifests.network import Edge, places

KAFKA, POSTGRES, METRICS = "9093/TCP", "5432/TCP", "8080/TCP"
WITH_LANES: Final = ("ingest", "checkpoint", "audit")
SERVICES: Final = (*WITH_LANES, "transform")
API: Final = ("443/TCP", "6443/TCP")

BASE: Final[frozenset[Edge]] = frozenset((name, "internet", "443/TCP") for name in ("transform", "ingest"))
STRIMZI: Final[frozenset[Edge]] = frozenset(
    {
        *((service, "kafka", KAFKA) for service in (*SERVICES, "topics")),
        *(("kafka", other, port) for other in ("kafka", "kafka-entity-operator") for port in ("9090/TCP", "9091/TCP")),
        *(
            ("kafka-entity-operator", other, port)
            for other in ("kafka", "kafka-entity-operator")
            for port in ("9090/TCP", "9091/TCP")
        ),
        *(
            ("strimzi", other, port)
            for other in ("kafka", "kafka-entity-operator")
            for port in ("9090/TCP", "9091/TCP", "8443/TCP")
        ),
        *((pod, "anywhere", port) for pod in ("kafka", "kafka-entity-operator") for port in API),
    }
)
CNPG: Final[frozenset[Edge]] = frozenset(
    {
        *((name, "postgres", POSTGRES) for name in (*WITH_LANES, "migrate", "roles", "postgres", "cnpg")),
        *((name, "postgres", "8000/TCP") for name in ("postgres", "cnpg")),
        *(("postgres", "anywhere", port) for port in API),
    }
)
KEDA: Final[frozenset[Edge]] = frozenset({("keda", "kafka", KAFKA)})
PROMETHEUS: Final[frozenset[Edge]] = frozenset(("prometheus", service, METRICS) for service in SERVICES)
COLLECTOR: Final[frozenset[Edge]] = frozenset(
    {
        *((service, "otel-collector", "4318/TCP") for service in SERVICES),
        *(("otel-collector", other, "4317/TCP") for other in ("traces", "prometheus")),
    }
)
BY_KIND: Final = {
    "Kafka": STRIMZI,
    "Cluster": CNPG,
    "ScaledObject": KEDA,
    "PodMonitor": PROMETHEUS,
}


def expected(documents: Iterable[Document]) -> set[Edge]:
    """Return the edges that an installation with these documents needs."""
    listed = list(documents)
    ours = {place.name for place in places(listed) if place.ours}
    wanted = set(BASE) | {(name, "dns", port) for name in ours for port in ("53/UDP", "53/TCP")}
    for kind, edges in BY_KIND.items():
        if any(of_kind(listed, kind)):
            wanted |= edges
    if any(pod.where == "Deployment/otel-collector" for pod in pods(listed)):
        wanted |= COLLECTOR
    return wanted
