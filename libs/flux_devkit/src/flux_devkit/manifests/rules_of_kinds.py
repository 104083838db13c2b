"""What the operators' resources must keep beyond their schemas: the rules in CEL that matter here, and what their manuals say.

A rule of the API server (`x-kubernetes-validations`) is in no JSON schema; those of the kinds that Flux deploys are written
out here, by kind. Immutability (`self == oldSelf`) cannot be judged from one document and is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from flux_devkit.manifests.documents import Document, Finding, name_of

SCALE_DOWN_SECONDS_MIN: Final = 300
Rule = Callable[[dict[str, Any]], Iterator[str]]


def findings(documents: Iterable[Document]) -> Iterator[Finding]:
    """Yield every rule that a document breaks."""
    for document in documents:
        for rule in RULES.get(str(document.get("kind")), ()):
            yield from (Finding(name_of(document), what) for what in rule(document.get("spec", {})))


def _scaled_object(spec: dict[str, Any]) -> Iterator[str]:
    least, most = spec.get("minReplicaCount", 0), spec.get("maxReplicaCount", 100)
    if least > most:
        yield f"minReplicaCount {least} is above maxReplicaCount {most}"
    if least < 1:
        yield "minReplicaCount is below 1: nobody would read the lanes"
    if "fallback" not in spec:
        yield "there is no fallback for a broker that does not answer"
    if spec.get("fallback", {}).get("replicas", 0) > most:
        yield "the fallback is above maxReplicaCount"


def _scale_down(spec: dict[str, Any]) -> Iterator[str]:
    behavior = spec.get("advanced", {}).get("horizontalPodAutoscalerConfig", {}).get("behavior", {})
    down = behavior.get("scaleDown", {})
    if down.get("stabilizationWindowSeconds", 0) < SCALE_DOWN_SECONDS_MIN:
        yield f"scale-down is not stabilised for {SCALE_DOWN_SECONDS_MIN} s"
    if [(policy["type"], policy["value"]) for policy in down.get("policies", [])] != [("Pods", 1)]:
        yield "scale-down takes more than one pod a period"


def _triggers(spec: dict[str, Any]) -> Iterator[str]:
    for trigger in spec.get("triggers", []):
        metadata = trigger.get("metadata", {})
        yield from (f"{key} is not a string" for key, value in metadata.items() if not isinstance(value, str))
        if trigger["type"] == "kafka" and metadata.get("offsetResetPolicy") != "earliest":
            yield f"{metadata.get('consumerGroup')}: offsetResetPolicy is not earliest, as the services' is"


def _kafka_user(spec: dict[str, Any]) -> Iterator[str]:
    authentication = spec.get("authentication", {})
    days = [authentication.get(name) for name in ("renewalDays", "validityDays")]
    if authentication.get("type") != "tls":
        if any(day is not None for day in days):
            yield "renewalDays and validityDays are for type tls alone"
    elif (days[0] is None) != (days[1] is None):
        yield "renewalDays and validityDays go together"
    elif None not in days and days[0] >= days[1]:
        yield "renewalDays is not below validityDays"


def _kafka(spec: dict[str, Any]) -> Iterator[str]:
    kafka = spec.get("kafka", {})
    for part in (kafka, spec.get("cruiseControl") or {}):
        metrics = part.get("metricsConfig") or {}
        if metrics.get("type") == "jmxPrometheusExporter" and "valueFrom" not in metrics:
            yield "metricsConfig needs valueFrom"
    rack = kafka.get("rack") or {}
    if rack and rack.get("type", "topology-label") == "topology-label" and not rack.get("topologyKey"):
        yield "rack needs topologyKey"
    if not (kafka.get("authorization") or {}).get("type"):
        yield "nothing is denied: there is no authorization"


def _node_pool(spec: dict[str, Any]) -> Iterator[str]:
    """A pod's security context of one's own takes the place of Strimzi's, which gives the volumes to the brokers' group."""
    storage = spec.get("storage", {})
    volumes = storage.get("volumes", []) if storage.get("type") == "jbod" else [storage]
    context = spec.get("template", {}).get("pod", {}).get("securityContext")
    if context and "fsGroup" not in context and any(each.get("type") == "persistent-claim" for each in volumes):
        yield "its security context has no fsGroup: a new volume is root's, and user 1001 cannot write to it"


def _cluster(spec: dict[str, Any]) -> Iterator[str]:
    if "imageName" in spec and "imageCatalogRef" in spec:
        yield "imageName and imageCatalogRef exclude each other"
    initdb = spec.get("bootstrap", {}).get("initdb", {})
    for name, provider in (("builtinLocale", "builtin"), ("icuLocale", "icu"), ("icuRules", "icu")):
        if name in initdb and initdb.get("localeProvider") != provider:
            yield f"{name} is for localeProvider {provider} alone"
    synchronous = spec.get("postgresql", {}).get("synchronous") or {}
    if synchronous and synchronous.get("number", 0) <= 0:
        yield "the number of synchronous standbys is not above 0"
    if synchronous and synchronous.get("number", 0) >= spec.get("instances", 1):
        yield "there are too few instances to wait for so many standbys"
    named = [synchronous.get(name) for name in ("standbyNamesPre", "standbyNamesPost")]
    if synchronous.get("dataDurability") == "preferred" and any(named):
        yield "preferred durability excludes named standbys"


RULES: Final[dict[str, tuple[Rule, ...]]] = {
    "ScaledObject": (_scaled_object, _scale_down, _triggers),
    "KafkaUser": (_kafka_user,),
    "Kafka": (_kafka,),
    "KafkaNodePool": (_node_pool,),
    "Cluster": (_cluster,),
}
