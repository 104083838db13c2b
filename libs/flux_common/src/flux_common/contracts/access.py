"""Who may do what on the brokers, derived from the catalogue: the access of each principal, as data.

Theory. Topics say who writes and who reads them, groups and relays say whose they are; from these each principal's grants
follow, and nobody writes an ACL by hand. Kafka denies what is not granted. A grant names its resource literally; prefixes
stand where the names of one owner begin alike: an agency's groups (`flux.<agency>.…`; the dot keeps `nasa` and `nasa2`
apart), a relay's transactional ids. A service that works for all agencies has a literal grant for each agency's topic,
for a prefix could not leave the other topics of the agencies out; so a new agency changes the services' grants, too.
*Describe* is not granted beside *Read* and *Write*: brokers derive it. Idempotent producers need nothing further.

Names here are the catalogue's. Whoever speaks to a broker puts the installation's `topic_prefix` before them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Literal, get_args

from flux_common.contracts.catalogue import GROUPS, RELAY_SERVICES, TOPICS, Service, relay_ids, topic_names

AGENCY_PRINCIPALS: Final = "flux."  # agency ids have no dots and services' principals have none, so they never meet
SERVICE_PRINCIPALS: Final = "flux-"
AGENCY_GROUPS: Final = "flux.<agency>."

ServiceName = Literal["ingest", "transform", "checkpoint", "audit"]
SERVICES: Final[tuple[ServiceName, ...]] = get_args(ServiceName)
AGENCY_SIDE: Final[tuple[Service, ...]] = ("producer", "downstream", "agency")
ALL_TOPICS: Final = ("flux.", "flux-internal.")
TOPICS_JOB: Final = "topics"
OBSERVER: Final = "observer"


class Resource(StrEnum):
    """What a grant is about."""

    TOPIC = "topic"
    GROUP = "group"
    TRANSACTIONAL_ID = "transactionalId"
    CLUSTER = "cluster"


class Pattern(StrEnum):
    """Whether a grant's name is the resource's, or the beginning of it."""

    LITERAL = "literal"
    PREFIX = "prefix"


class Operation(StrEnum):
    """What may be done."""

    READ = "Read"
    WRITE = "Write"
    CREATE = "Create"
    DELETE = "Delete"
    ALTER = "Alter"
    DESCRIBE = "Describe"
    DESCRIBE_CONFIGS = "DescribeConfigs"
    ALTER_CONFIGS = "AlterConfigs"


# What brokers derive: seeing from doing.
_IMPLIED_BY: Final[Mapping[Operation, frozenset[Operation]]] = {
    Operation.DESCRIBE: frozenset({Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER}),
    Operation.DESCRIBE_CONFIGS: frozenset({Operation.ALTER_CONFIGS}),
}


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """One thing that a principal may do."""

    resource: Resource
    name: str
    pattern: Pattern
    operations: tuple[Operation, ...]

    def covers(self, resource: Resource, name: str, operation: Operation) -> bool:
        """Return whether it lets a principal do `operation` to the resource `name`, as a broker judges."""
        named = name.startswith(self.name) if self.pattern is Pattern.PREFIX else name == self.name
        enough = {operation} | _IMPLIED_BY.get(operation, frozenset())
        return resource is self.resource and named and not enough.isdisjoint(self.operations)

    def on_broker(self, topic_prefix: str) -> Grant:
        """Return the grant with the name that its resource has under `topic_prefix`."""
        return self if self.resource is Resource.CLUSTER else replace(self, name=topic_prefix + self.name)


@dataclass(frozen=True, slots=True)
class Quota:
    """What each broker lets a principal have: bytes a second in and out, and a share of its threads (100 is one)."""

    producer_byte_rate: int
    consumer_byte_rate: int
    request_percentage: int


AGENCY_QUOTA: Final = Quota(producer_byte_rate=2**20, consumer_byte_rate=10 * 2**20, request_percentage=50)
SERVICE_QUOTA: Final = Quota(producer_byte_rate=64 * 2**20, consumer_byte_rate=128 * 2**20, request_percentage=400)


@dataclass(frozen=True, slots=True)
class Principal:
    """A login on the brokers, with everything it may."""

    name: str
    grants: tuple[Grant, ...]
    quota: Quota


def principal_of_agency(agency_id: str) -> str:
    """Return the login of an agency's producers and subscribers."""
    return AGENCY_PRINCIPALS + agency_id


def principal_of_service(service: str) -> str:
    """Return the login of a service, of the topics job or of an observer."""
    return SERVICE_PRINCIPALS + service


def access_of_agency(agency_id: str) -> tuple[Grant, ...]:
    """Return what an agency may: write its requests, read what is told to it, in groups of its own."""
    topics = [spec for spec in TOPICS if spec.per_agency]
    writes = [_topic(spec.of(agency_id), Operation.WRITE) for spec in topics if _among(AGENCY_SIDE, spec.producers)]
    reads = [_topic(spec.of(agency_id), Operation.READ) for spec in topics if _among(AGENCY_SIDE, spec.consumers)]
    group = AGENCY_GROUPS.replace("<agency>", agency_id)
    return (*writes, *reads, Grant(Resource.GROUP, group, Pattern.PREFIX, (Operation.READ,)))


def access_of_service(service: ServiceName, agencies: Iterable[str]) -> tuple[Grant, ...]:
    """Return what a service may: what the catalogue says that it writes and reads, for these agencies."""
    listed = sorted(agencies)
    grants = []
    for spec in TOPICS:
        does = [Operation.READ] * (service in spec.consumers) + [Operation.WRITE] * (service in spec.producers)
        if does:
            grants += [_topic(name, *does) for name in topic_names(spec, listed)]
    grants += [
        Grant(Resource.GROUP, group.name, Pattern.LITERAL, (Operation.READ,))
        for group in GROUPS
        if group.service == service
    ]
    if service in RELAY_SERVICES:
        grants.append(Grant(Resource.TRANSACTIONAL_ID, relay_ids(service), Pattern.PREFIX, (Operation.WRITE,)))
    return tuple(grants)


def access_of_topics_job() -> tuple[Grant, ...]:
    """Return what the topics job may: create and describe Flux's topics, but neither read nor write them."""
    does = (Operation.CREATE, Operation.DESCRIBE, Operation.DESCRIBE_CONFIGS)
    return tuple(Grant(Resource.TOPIC, name, Pattern.PREFIX, does) for name in ALL_TOPICS)


def access_of_observer() -> tuple[Grant, ...]:
    """Return what whoever measures lag may (an autoscaler, `flux-etl lag`): see topics and groups, not records."""
    topics = tuple(Grant(Resource.TOPIC, name, Pattern.PREFIX, (Operation.DESCRIBE,)) for name in ALL_TOPICS)
    groups = (Grant(Resource.GROUP, SERVICE_PRINCIPALS, Pattern.PREFIX, (Operation.DESCRIBE,)),)
    return topics + groups


def agency_principal(agency_id: str, quota: Quota | None = None) -> Principal:
    """Return an agency's login; without a quota of its own it has the usual one."""
    return Principal(principal_of_agency(agency_id), access_of_agency(agency_id), quota or AGENCY_QUOTA)


def service_principals(agencies: Iterable[str]) -> tuple[Principal, ...]:
    """Return the logins of Flux itself on an installation of these agencies."""
    listed = sorted(agencies)
    access = {name: access_of_service(name, listed) for name in SERVICES}
    others = {TOPICS_JOB: access_of_topics_job(), OBSERVER: access_of_observer()}
    return tuple(
        Principal(principal_of_service(name), grants, SERVICE_QUOTA) for name, grants in (access | others).items()
    )


def principals(quotas: Mapping[str, Quota] | Mapping[str, None]) -> tuple[Principal, ...]:
    """Return every login of an installation; `quotas` names its agencies, with the quotas if they are not the usual ones."""
    return (
        *service_principals(quotas),
        *(agency_principal(agency_id, quota) for agency_id, quota in sorted(quotas.items())),
    )


def is_flux_principal(name: str) -> bool:
    """Return whether a login is one that Flux names, and so one that it may take grants from."""
    return name.startswith((AGENCY_PRINCIPALS, SERVICE_PRINCIPALS))


def _topic(name: str, *operations: Operation) -> Grant:
    return Grant(Resource.TOPIC, name, Pattern.LITERAL, operations)


def _among(some: Iterable[Service], others: Iterable[Service]) -> bool:
    return not set(some).isdisjoint(others)
