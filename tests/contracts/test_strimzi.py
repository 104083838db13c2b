"""What is rendered for Strimzi is what its resources allow, and says what the catalogue says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from flux_client.strimzi import Cluster, agency_manifests, internal_topics, kafka_user, service_users
from flux_common.contracts.access import Quota, agency_principal, principals
from flux_common.contracts.catalogue import TOPICS

AGENCIES = ("library-of-congress", "nasa")
CLUSTER = Cluster("flux", "flux-etl")


@pytest.fixture(scope="module")
def faults(corpora: Path) -> Any:
    """Return a function that lists what Strimzi would refuse of a manifest."""
    schemas = {
        kind: Draft202012Validator(json.loads((corpora / f"crd-schemas/{kind}_kafka.strimzi.io_v1.json").read_text()))
        for kind in ("KafkaTopic", "KafkaUser")
    }
    return lambda manifest: [error.message for error in schemas[manifest["kind"]].iter_errors(manifest)]


def everything() -> list[dict[str, Any]]:
    """Return all manifests of an installation."""
    agencies = [manifest for agency in AGENCIES for manifest in agency_manifests(agency, CLUSTER)]
    return [*internal_topics(CLUSTER), *service_users(AGENCIES, CLUSTER), *agencies]


def test_every_manifest_is_one_that_strimzi_takes(faults: Any) -> None:
    """Also after it was written as YAML, and with a password that is somebody else's."""
    given = kafka_user(agency_principal("nasa"), CLUSTER, password_secret={"name": "kafka-nasa", "key": "password"})
    written = yaml.safe_load_all(yaml.safe_dump_all([*everything(), given]))

    assert [fault for manifest in written for fault in faults(manifest)] == []


def test_a_mistake_is_found(faults: Any) -> None:
    """An unknown operation, an unknown field, a limit that is no number."""
    user = kafka_user(agency_principal("nasa"), CLUSTER)
    user["spec"]["authorization"]["acls"][0]["operations"] = ["Rite"]
    user["spec"]["quotas"]["producer_byte_rate"] = "much"

    assert len(faults(user)) == 2


def test_topics_and_logins_are_the_codes() -> None:
    """None is forgotten and none is invented; a quota of an agency's own is in its manifest."""
    names = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in everything()}
    topics = {spec.of(agency) for spec in TOPICS for agency in AGENCIES}
    logins = {principal.name for principal in principals(dict.fromkeys(AGENCIES))}
    limited = agency_manifests("nasa", CLUSTER, Quota(1, 2, 3))[-1]

    assert names == {("KafkaTopic", name) for name in topics} | {("KafkaUser", name) for name in logins}
    assert limited["spec"]["quotas"] == {"producerByteRate": 1, "consumerByteRate": 2, "requestPercentage": 3}


def test_a_name_that_kubernetes_has_not_is_refused() -> None:
    """An agency's id may end with a hyphen, and then no resource can be called like its login."""
    with pytest.raises(ValueError, match="ends with a letter or a digit"):
        agency_manifests("nasa-", CLUSTER)
