"""What the brokers hold about Flux's logins, and the way from there to what they should hold.

Theory. `contracts/access.py` is the authority; a broker keeps it as ACLs (one for each operation), quotas and SCRAM
credentials. `difference` compares and changes nothing; `apply` adds what is missing and sets what differs, so that it can be
repeated, and interrupted anywhere. An ACL of a Flux login that the code does not know is removed by `prune` alone, after all
else: a removal can stop somebody, an addition cannot. Logins that are not Flux's are never looked at, nor are names without
this installation's prefix. A password cannot be compared (brokers keep salted keys), so it is set whenever it is given, and
last: a login that works has its quota.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from confluent_kafka.admin import (  # type: ignore[attr-defined] # re-exported without saying so
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from flux_common.contracts.access import Grant, Pattern, Principal, Quota, Resource, is_flux_principal
from flux_common.kafka.admin import Admin
from flux_common.kafka.raw_admin import describe_acls, describe_quotas, limits_of, set_quotas
from flux_common.settings import KafkaSettings

AT_ONCE: Final = 1_000  # a controller takes at most 10,000 changes in one order
ITERATIONS: Final = 8_192
USER: Final = "User:"
_RESOURCES: Final = {
    Resource.TOPIC: "TOPIC",
    Resource.GROUP: "GROUP",
    Resource.TRANSACTIONAL_ID: "TRANSACTIONAL_ID",
    Resource.CLUSTER: "BROKER",
}
_PATTERNS: Final = {Pattern.LITERAL: "LITERAL", Pattern.PREFIX: "PREFIXED"}
_CLUSTER: Final = _RESOURCES[Resource.CLUSTER]


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """One ACL as brokers keep it, in the words of their protocol; the name has the installation's prefix."""

    login: str
    resource: str
    pattern: str
    name: str
    operation: str
    host: str = "*"
    permission: str = "ALLOW"

    def __str__(self) -> str:
        host = "" if self.host == "*" else f" from {self.host}"
        return f"{self.permission} {self.operation} {self.resource} {self.pattern} {self.name}{host}"


@dataclass(frozen=True, slots=True)
class Difference:
    """What the brokers do not hold yet, what they hold without the code's knowledge, and which logins have no password."""

    missing: list[Rule]
    unknown: list[Rule]
    quotas: dict[str, Quota]
    without_password: list[str]


def rules_of(principal: Principal, topic_prefix: str) -> set[Rule]:
    """Return the ACLs that a principal's grants are."""
    grants = [grant.on_broker(topic_prefix) for grant in principal.grants]
    return {_rule(principal.name, grant, operation.name) for grant in grants for operation in grant.operations}


async def difference(settings: KafkaSettings, principals: Collection[Principal]) -> Difference:
    """Compare what the brokers hold with what they should; `settings` are an administrator's. Raises Forbidden, Unavailable."""
    wanted = {rule for principal in principals for rule in rules_of(principal, settings.topic_prefix)}
    held, limits = await held_rules(settings), await describe_quotas(settings)
    known = await logins_with_password(settings)  # last: whoever may not ask this has been refused above
    return Difference(
        missing=sorted(wanted - held),
        unknown=sorted(held - wanted),
        quotas={one.name: one.quota for one in principals if limits.get(one.name) != limits_of(one.quota)},
        without_password=sorted(one.name for one in principals if one.name not in known),
    )


async def apply(settings: KafkaSettings, found: Difference, *, prune: bool = False) -> None:
    """Bring the brokers to where nothing is missing and, with `prune`, nothing unknown. Raises Forbidden, Unavailable."""
    admin = Admin.of(settings)
    for some in _batches(found.missing):
        await admin.ask(partial(_grant, some))
    await set_quotas(settings, found.quotas)
    for some in _batches(found.unknown if prune else ()):
        await admin.ask(partial(_revoke, some))


async def held_rules(settings: KafkaSettings) -> set[Rule]:
    """Return the ACLs of Flux's logins under this installation's prefix. Raises Forbidden, Unavailable."""
    rules = {_read(*acl) for acl in await describe_acls(settings) if acl[3].startswith(USER)}
    return {rule for rule in rules if _ours(rule, settings.topic_prefix)}


async def set_passwords(settings: KafkaSettings, passwords: Mapping[str, str]) -> None:
    """Give logins their passwords; the old one of a login ends at once for new connections. Raises Forbidden, Unavailable."""
    how = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, ITERATIONS)
    orders = [UserScramCredentialUpsertion(login, how, text.encode()) for login, text in passwords.items()]
    if orders:
        await Admin.of(settings).ask(lambda client: client.alter_user_scram_credentials(orders))


async def logins_with_password(settings: KafkaSettings) -> set[str]:
    """Return every login that has SCRAM credentials.

    Only for whoever may ask: an answer that refuses ends the process, by an invalid free in native code (2.16.1).
    """
    answers = await Admin.of(settings).ask(lambda client: {"all": client.describe_user_scram_credentials()})
    return set(answers["all"])


def _rule(login: str, grant: Grant, operation: str) -> Rule:
    return Rule(login, _RESOURCES[grant.resource], _PATTERNS[grant.pattern], grant.name, operation)


def _ours(rule: Rule, topic_prefix: str) -> bool:
    return is_flux_principal(rule.login) and (rule.resource == _CLUSTER or rule.name.startswith(topic_prefix))


def _read(resource: int, name: str, pattern: int, principal: str, host: str, operation: int, permission: int) -> Rule:
    return Rule(
        principal.removeprefix(USER),
        ResourceType(resource).name,
        ResourcePatternType(pattern).name,
        name,
        AclOperation(operation).name,
        host,
        AclPermissionType(permission).name,
    )


def _batches(rules: Sequence[Rule]) -> Iterator[Sequence[Rule]]:
    return (rules[at : at + AT_ONCE] for at in range(0, len(rules), AT_ONCE))


def _grant(rules: Sequence[Rule], client: Any) -> Any:
    return client.create_acls([AclBinding(*_words(rule)) for rule in rules])


def _revoke(rules: Sequence[Rule], client: Any) -> Any:
    return client.delete_acls([AclBindingFilter(*_words(rule)) for rule in rules])


def _words(rule: Rule) -> Any:
    return (
        ResourceType[rule.resource],
        rule.name,
        ResourcePatternType[rule.pattern],
        USER + rule.login,
        rule.host,
        AclOperation[rule.operation],
        AclPermissionType[rule.permission],
    )
