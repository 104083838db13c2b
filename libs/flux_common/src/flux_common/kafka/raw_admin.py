"""Questions and orders about logins that confluent-kafka cannot say, in the protocol's own terms.

It has no call for quotas, and to a login that may not ask for ACLs it answers that there are none. aiokafka knows the two
questions, not the order. Every broker since 2.6 has these versions. Brokers pass an order on to the controller and answer
questions from what has reached them, which may be a moment behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import ClusterAuthorizationFailedError, KafkaError, for_code
from aiokafka.protocol.admin import DescribeAclsRequest, DescribeClientQuotasRequest
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Float64, Int16, Int32, Schema, String

from flux_common.contracts.access import Quota
from flux_common.kafka.admin import Forbidden
from flux_common.kafka.errors import unavailable
from flux_common.kernel.codes import Code
from flux_common.settings import KafkaSettings

USER: Final = "user"
ANY_NAMED: Final = 2
ANY: Final = 1
_TEXT: Final = String("utf-8")
_ENTITY: Final = ("entity", Array(("entity_type", _TEXT), ("entity_name", _TEXT)))


class _AlterQuotasResponse(Response):  # type: ignore[misc]
    API_KEY = 49
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32), ("entries", Array(("error_code", Int16), ("error_message", _TEXT), _ENTITY))
    )


class _AlterQuotasRequest(RequestStruct):  # type: ignore[misc]
    API_KEY = 49
    API_VERSION = 0
    RESPONSE_TYPE = _AlterQuotasResponse
    SCHEMA = Schema(
        ("entries", Array(_ENTITY, ("ops", Array(("key", _TEXT), ("value", Float64), ("remove", Boolean))))),
        ("validate_only", Boolean),
    )


class _AlterQuotas(Request[_AlterQuotasRequest]):  # type: ignore[misc]
    API_KEY = 49

    def __init__(self, quotas: Mapping[str, Quota]) -> None:
        self._quotas = quotas

    def build(self, request_struct_class: type[_AlterQuotasRequest]) -> _AlterQuotasRequest:
        entries = [
            ([(USER, login)], [(limit, value, False) for limit, value in limits_of(quota).items()])
            for login, quota in self._quotas.items()
        ]
        return request_struct_class(entries, False)


def limits_of(quota: Quota) -> dict[str, float]:
    """Return a quota in the brokers' words."""
    return {
        "producer_byte_rate": float(quota.producer_byte_rate),
        "consumer_byte_rate": float(quota.consumer_byte_rate),
        "request_percentage": float(quota.request_percentage),
    }


async def describe_quotas(settings: KafkaSettings) -> dict[str, dict[str, float]]:
    """Return the limits of every login that has any. Raises Forbidden, Unavailable."""
    answer = await _ask(settings, DescribeClientQuotasRequest([(USER, ANY_NAMED, None)], True))
    _refuse(answer.error_code, "ask for quotas")
    return {entity[0][1]: dict(values) for entity, values in answer.entries}


async def set_quotas(settings: KafkaSettings, quotas: Mapping[str, Quota]) -> None:
    """Give logins their quotas; a login need not exist yet. Raises Forbidden, Unavailable."""
    if quotas:
        for code, _, _ in (await _ask(settings, _AlterQuotas(quotas))).entries:
            _refuse(code, "set quotas")


async def describe_acls(settings: KafkaSettings) -> list[tuple[int, str, int, str, str, int, int]]:
    """Return every ACL: resource type, name, pattern, principal, host, operation, permission, as the protocol numbers them.

    Raises Forbidden, Unavailable.
    """
    answer = await _ask(settings, DescribeAclsRequest(ANY, None, ANY, None, None, ANY, ANY))
    _refuse(answer.error_code, "ask for ACLs")
    return [(*resource, *acl) for *resource, acls in answer.resources for acl in acls]


async def _ask(settings: KafkaSettings, request: Request[Any]) -> Any:
    admin: Any = AIOKafkaAdminClient(**settings.aiokafka_options())
    try:
        await admin.start()
        return await admin._send_request(request)
    except KafkaError as problem:
        raise unavailable(problem, "administer logins") from problem
    finally:
        await admin.close()


def _refuse(code: int, act: str) -> None:
    if code == ClusterAuthorizationFailedError.errno:
        raise Forbidden(Code.BROKER_UNAVAILABLE, f"This login may not {act}")
    if code:
        raise unavailable(for_code(code)(), act)
