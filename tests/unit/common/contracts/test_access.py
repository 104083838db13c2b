"""Who may do what on the brokers: said by the catalogue, and nothing beside it."""

from __future__ import annotations

import pytest

from flux_common.contracts.access import (
    AGENCY_QUOTA,
    AGENCY_SIDE,
    SERVICES,
    Grant,
    Operation,
    Pattern,
    Principal,
    Quota,
    Resource,
    access_of_agency,
    access_of_service,
    access_of_topics_job,
    principals,
)
from flux_common.contracts.catalogue import GROUPS, TOPICS, topic_names

AGENCIES = ("nasa", "nasa2")
EVERY_TOPIC = [(spec, name) for spec in TOPICS for name in topic_names(spec, list(AGENCIES))]


def allowed(grants: tuple[Grant, ...], resource: Resource, name: str) -> set[Operation]:
    """Return what may be done to one resource."""
    return {operation for operation in Operation if any(grant.covers(resource, name, operation) for grant in grants)}


def test_an_agency_writes_its_requests_and_reads_its_answers_and_touches_nothing_else() -> None:
    """Each topic of every agency, also of the one whose name only begins alike."""
    grants = access_of_agency("nasa")
    found = {name: does for _, name in EVERY_TOPIC if (does := allowed(grants, Resource.TOPIC, name))}
    reads = {Operation.READ, Operation.DESCRIBE}

    assert found == {
        "flux.nasa.run.requests.v1": {Operation.WRITE, Operation.DESCRIBE},
        "flux.nasa.run.decisions.v1": reads,
        "flux.nasa.run.completions.v1": reads,
        "flux.nasa.audit.receipts.v1": reads,
        "flux.nasa.dead-letters.v1": reads,
    }


def test_an_agency_has_these_grants_and_no_other_of_any_kind() -> None:
    """Whatever resource a grant is about, the whole cluster and transactions among them."""
    reads = ("run.decisions.v1", "run.completions.v1", "audit.receipts.v1", "dead-letters.v1")
    topics = {("run.requests.v1", Operation.WRITE), *((name, Operation.READ) for name in reads)}

    assert sorted(access_of_agency("nasa")) == sorted(
        [
            *(Grant(Resource.TOPIC, f"flux.nasa.{name}", Pattern.LITERAL, (does,)) for name, does in topics),
            Grant(Resource.GROUP, "flux.nasa.", Pattern.PREFIX, (Operation.READ,)),
        ]
    )


@pytest.mark.parametrize("principal", principals(dict.fromkeys(AGENCIES)), ids=lambda one: one.name)
def test_nobody_has_a_right_over_the_cluster(principal: Principal) -> None:
    """ACLs, passwords, quotas and brokers are an administrator's."""
    assert [grant for grant in principal.grants if grant.resource is Resource.CLUSTER] == []


@pytest.mark.parametrize("group", ["flux.nasa2.watchers", "flux.nasa", "watchers", *(group.name for group in GROUPS)])
def test_an_agency_uses_no_group_but_its_own(group: str) -> None:
    """Committed offsets of others, and of Flux, are out of its reach."""
    grants = access_of_agency("nasa")

    assert allowed(grants, Resource.GROUP, group) == set()
    assert allowed(grants, Resource.GROUP, "flux.nasa.watchers") == {Operation.READ, Operation.DESCRIBE}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_does_what_the_catalogue_says_of_it(service: str) -> None:
    """Producers write, consumers read, of every agency's topics alike."""
    grants = access_of_service(service, AGENCIES)  # type: ignore[arg-type]  # the four names
    for spec, name in EVERY_TOPIC:
        does = allowed(grants, Resource.TOPIC, name) - {Operation.DESCRIBE}
        said = [(Operation.READ, spec.consumers), (Operation.WRITE, spec.producers)]
        assert does == {operation for operation, who in said if service in who}, name


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_its_own_groups_and_transactions(service: str) -> None:
    """And those of no other service."""
    grants = access_of_service(service, AGENCIES)  # type: ignore[arg-type]  # the four names
    groups = {group.name for group in GROUPS if allowed(grants, Resource.GROUP, group.name)}
    relays = {
        other for other in SERVICES if allowed(grants, Resource.TRANSACTIONAL_ID, f"flux-internal.relay.{other}.3")
    }

    assert groups == {group.name for group in GROUPS if group.service == service}
    assert relays == ({service} if service != "transform" else set())


def test_every_topic_has_somebody_who_writes_it_and_somebody_who_reads_it() -> None:
    """A name in the catalogue that no principal stands for would be a right that nobody gets."""
    known = {*SERVICES, *AGENCY_SIDE}

    assert all({*spec.producers, *spec.consumers} <= known for spec in TOPICS)


def test_the_topics_job_makes_topics_and_reads_no_record() -> None:
    """Its login is in the hands of a deployment."""
    does = {"Create", "Describe", "DescribeConfigs"}

    assert all(allowed(access_of_topics_job(), Resource.TOPIC, name) == does for _, name in EVERY_TOPIC)


def test_logins_never_meet_whatever_an_agency_is_called() -> None:
    """An agency may be called like a service."""
    own = Quota(1, 2, 3)
    found = principals({"ingest": AGENCY_QUOTA, "flux-ingest": own})

    assert len({principal.name for principal in found}) == len(found) == 8
    assert [one.quota for one in found if one.name in ("flux.ingest", "flux.flux-ingest")] == [own, AGENCY_QUOTA]


def test_a_prefix_stands_before_every_name_on_the_broker() -> None:
    """But not before the cluster's, which has one name only."""
    topic = Grant(Resource.TOPIC, "flux.", Pattern.PREFIX, (Operation.CREATE,))
    cluster = Grant(Resource.CLUSTER, "kafka-cluster", Pattern.LITERAL, (Operation.DESCRIBE,))

    assert topic.on_broker("t1.").name == "t1.flux."
    assert cluster.on_broker("t1.") == cluster
